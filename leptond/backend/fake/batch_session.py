"""Whole calls: an encoder, a translator and a tensor model in one, chosen row by row.

row with tensors          each numeric tensor comes back as 2 x + 1 under its own name
options task = "embed"    one tensor `embedding`, float32 `[32]`, of length 1
any other row of tokens   the language's greedy continuation, token by token with its
                          log-probability, to the end of the turn or `max_tokens` (16)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.backend.fake.language import END_OF_TURN, VOCAB_SIZE, FakeLanguage, TokenHistory
from leptond.backend.fake.runtime import FakeRuntime
from leptond.backend.picking import log_sum_exp
from leptond.backend.rows import BatchRow, EmittedChunk
from leptond.errors import InvalidRequest, RequestTooLarge
from leptond.types import Task

__all__ = ["EMBEDDING_DIMENSIONS", "FakeBatchSession"]

EMBEDDING_DIMENSIONS = 32
_DEFAULT_MAX_TOKENS = 16
_EMBEDDING = "embedding"

Emit = Callable[[int, EmittedChunk], bool]
Tensors = Mapping[str, npt.NDArray[Any]]


class FakeBatchSession:
    """The fake engine's `BatchSession`.

    Rows advance together, one token a step, so that chunks of several rows interleave; a row
    that answers at once does so before the first step.
    """

    def __init__(
        self, language: FakeLanguage, runtime: FakeRuntime, *, max_rows: int, max_tokens: int
    ) -> None:
        self._language = language
        self._runtime = runtime
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self._is_interrupted = threading.Event()

    def run(self, batch: Sequence[BatchRow], emit: Emit) -> None:
        """Answer every row through `emit`."""
        self._runtime.require_alive()
        self._check(batch)
        self._is_interrupted.clear()
        self._runtime.begin(row.token_ids for row in batch)
        self._runtime.spend(len(batch), sum(len(row.token_ids) for row in batch))
        running: dict[int, _Translation] = {}
        for index, row in enumerate(batch):
            if self._is_interrupted.is_set():
                return
            if row.tensors or _is_embedding(row):
                emit(index, EmittedChunk(tensors=self._answer(row), is_final=True))
            else:
                running[index] = _Translation(self._language, row)
        while running and not self._is_interrupted.is_set():
            for index, translation in list(running.items()):
                chunk = translation.next_chunk()
                if not emit(index, chunk) or chunk.is_final:
                    del running[index]
            self._runtime.spend(len(running), len(running))

    def interrupt(self) -> None:
        """End the running call before its next step; its open rows get no final chunk."""
        self._is_interrupted.set()

    def shutdown(self) -> None:
        """End the session; idempotent."""
        self._runtime.shut_down()

    def _answer(self, row: BatchRow) -> Tensors:
        """The tensors of a row that answers at once, in the caller's buffers where it has any."""
        if row.tensors:
            answer = {
                name: np.asarray(x * x.dtype.type(2) + x.dtype.type(1))
                for name, x in row.tensors.items()
            }
        else:
            answer = {_EMBEDDING: self._language.embed(row.token_ids, EMBEDDING_DIMENSIONS)}
        for name, buffer in row.outputs.items():
            buffer[...] = answer[name]
            answer[name] = buffer
        return answer

    def _check(self, batch: Sequence[BatchRow]) -> None:
        """Refuse a batch with a bad row before anything ran."""
        if len(batch) > self._max_rows:
            raise InvalidRequest(f"{len(batch)} rows; at most {self._max_rows} fit", field="batch")
        for row in batch:
            if row.tensors:
                _check_tensors(row)
            else:
                self._check_tokens(row)
            _check_outputs(row)

    def _check_tokens(self, row: BatchRow) -> None:
        if not row.token_ids:
            raise InvalidRequest("a row needs tokens or tensors", field="token_ids")
        if not all(0 <= token < VOCAB_SIZE for token in row.token_ids):
            raise InvalidRequest(f"a token is not below {VOCAB_SIZE}", field="token_ids")
        if len(row.token_ids) > self._max_tokens:
            raise RequestTooLarge(
                f"{len(row.token_ids)} tokens; at most {self._max_tokens} fit", field="token_ids"
            )
        max_tokens = row.options.get("max_tokens", _DEFAULT_MAX_TOKENS)
        if not isinstance(max_tokens, int) or max_tokens < 0:
            raise InvalidRequest(f"max_tokens = {max_tokens!r}", field="options.max_tokens")


class _Translation:
    """One row's way through its continuation."""

    def __init__(self, language: FakeLanguage, row: BatchRow) -> None:
        self._language = language
        self._history = TokenHistory(row.token_ids)
        self._num_left: int = row.options.get("max_tokens", _DEFAULT_MAX_TOKENS)

    def next_chunk(self) -> EmittedChunk:
        if self._num_left == 0 or self._history.tokens[-1] == END_OF_TURN:
            return EmittedChunk(is_final=True)
        logits = self._language.logits(self._history, len(self._history))
        token = int(logits.argmax())
        score = float(logits[token] - log_sum_exp(logits[None])[0])
        self._history.extend((token,))
        self._num_left -= 1
        return EmittedChunk(token_ids=(token,), scores=(score,))


def _is_embedding(row: BatchRow) -> bool:
    return row.options.get("task") == Task.EMBED


def _check_tensors(row: BatchRow) -> None:
    for name, tensor in row.tensors.items():
        if not np.issubdtype(tensor.dtype, np.number):
            raise InvalidRequest(
                f"tensor {name} is of {tensor.dtype}, which is no number", field=f"tensors.{name}"
            )


def _check_outputs(row: BatchRow) -> None:
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in row.tensors.items()}
    if _is_embedding(row) and not row.tensors:
        shapes[_EMBEDDING] = ((EMBEDDING_DIMENSIONS,), np.dtype(np.float32))
    for name, buffer in row.outputs.items():
        field = f"outputs.{name}"
        if name not in shapes:
            raise InvalidRequest(f"there is no output {name}", field=field)
        if (buffer.shape, buffer.dtype) != shapes[name] or not buffer.flags.writeable:
            shape, dtype = shapes[name]
            raise InvalidRequest(
                f"the buffer of output {name} must be writable {dtype} {list(shape)}", field=field
            )
