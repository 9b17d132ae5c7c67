"""Runs a foreign graph a few times, to see what its file does not say: widths and limits."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from leptond.errors import InvalidRequest
from leptond_onnxruntime.importer import encoder_io as io

__all__ = ["MAX_TRIED_TOKENS", "Trial"]

_LOG = logging.getLogger(__name__)

MAX_TRIED_TOKENS = 512
"""Longest row of a trial; attention's memory grows with its square."""

_LOG_NOTHING = 4  # as in `leptond_onnxruntime.graphs`: errors are raised, and told once
_ROWS, _TOKENS = 2, 3


class Trial:
    """One graph, loaded on one thread of the processor.

    Args:
        path: of the graph.
        source: what to name in messages.
        output: the only one that is asked for.
        takes_types: whether it takes token types.

    Raises:
        InvalidRequest: the engine cannot load it.
    """

    def __init__(self, path: Path, source: Path, output: str, *, takes_types: bool) -> None:
        self._source = source
        self._output = output
        self._takes_types = takes_types
        settings = ort.SessionOptions()
        settings.log_severity_level = _LOG_NOTHING
        settings.intra_op_num_threads = 1
        try:
            self._session = ort.InferenceSession(
                path, settings, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # pybind11 gives its own classes, without a common base
            raise InvalidRequest(f"{source}: ONNX Runtime cannot load it: {error}") from error

    def hidden_size(self, *, is_pooled: bool) -> int:
        """Return the width of the output.

        Raises:
            InvalidRequest: it does not run, or gives something else than it should.
        """
        output = self._run(_ROWS, _TOKENS)
        lines = (_ROWS,) if is_pooled else (_ROWS, _TOKENS)
        if output.dtype != np.float32 or output.shape[:-1] != lines or not output.shape[-1]:
            raise InvalidRequest(
                f"{self._source}: output {self._output} of {_ROWS} rows of {_TOKENS} tokens is "
                f"{output.dtype} {list(output.shape)}"
            )
        return int(output.shape[-1])

    def check_vocabulary(self, vocab_size: int, tokenizer: Path) -> None:
        """Refuse a tokenizer with tokens that the graph does not know."""
        if not self._runs(1, token_id=vocab_size - 1):
            raise InvalidRequest(
                f"{tokenizer}: {self._source} does not know its token {vocab_size - 1}: not the "
                "tokenizer of this model",
                field="--tokenizer",
            )

    def max_tokens(self, stated: int | None) -> int:
        """Return the longest row.

        Args:
            stated: by the tokenizer's configuration; believed, if a row of that length or of
                `MAX_TRIED_TOKENS` runs. None takes the longest up to there that runs.

        Raises:
            InvalidRequest: what is stated does not run.
        """
        tried = min(stated or MAX_TRIED_TOKENS, MAX_TRIED_TOKENS)
        if self._runs(tried):
            return stated or tried
        if stated is not None:
            raise InvalidRequest(
                f"{self._source} does not take {tried} tokens; its tokenizer_config.json says "
                f"model_max_length {stated}"
            )
        good, bad = 1, tried
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if self._runs(middle) else (good, middle)
        return good

    def num_token_types(self) -> int:
        """Return 0 without such an input, 2 when it tells the texts of a pair apart, else 1."""
        if not self._takes_types:
            return 0
        return 2 if self._runs(1, token_type=1) else 1

    def _runs(self, num_tokens: int, *, token_id: int = 0, token_type: int = 0) -> bool:
        try:
            self._run(1, num_tokens, token_id=token_id, token_type=token_type)
        except InvalidRequest as error:
            _LOG.debug("trial_failed num_tokens=%d reason=%s", num_tokens, error)
            return False
        return True

    def _run(
        self, num_rows: int, num_tokens: int, *, token_id: int = 0, token_type: int = 0
    ) -> npt.NDArray[Any]:
        shape = (num_rows, num_tokens)
        feed = {
            io.INPUT_IDS: np.full(shape, token_id, np.int64),
            io.ATTENTION_MASK: np.ones(shape, np.int64),
        }
        if self._takes_types:
            feed[io.TOKEN_TYPE_IDS] = np.full(shape, token_type, np.int64)
        try:
            (output,) = self._session.run([self._output], feed)
        except Exception as error:  # pybind11 gives its own classes, without a common base
            raise InvalidRequest(f"{self._source}: ONNX Runtime cannot run it: {error}") from error
        result: npt.NDArray[Any] = output
        return result
