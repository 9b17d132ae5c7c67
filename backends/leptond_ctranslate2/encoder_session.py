"""Encoders: one call for all rows, then the model's own head in numpy.

task = "embed"       tensors {"embedding": float32 [dimensions]}, not normalised
       pooling       absent: the model's own; else "mean", "cls" or "last"
task = "classify"    tensors {"logits": float32 [num_labels]}, raw

A row's `token_ids` have their special tokens; `tensors["token_type_ids"]`, int64 [len], tells the
texts of a pair apart where the model does, and is all zeros where it is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ctranslate2
import numpy as np
import numpy.typing as npt

from leptond.backend import BatchRow
from leptond.backend.heads import POOLINGS, Head
from leptond.errors import InvalidRequest
from leptond.types import Task
from leptond_ctranslate2.answers import Answers
from leptond_ctranslate2.description import EngineDescription
from leptond_ctranslate2.rows import (
    check_ids,
    check_known_options,
    check_outputs,
    check_task,
    read_ids,
    shared_options,
)
from leptond_ctranslate2.session import CTranslate2Session, engine_errors

__all__ = ["EncoderSession"]

_TENSORS = {Task.EMBED: "embedding", Task.CLASSIFY: "logits"}


class EncoderSession(CTranslate2Session):
    """A `BatchSession` over a `ctranslate2.Encoder`."""

    def __init__(
        self,
        encoder: Any,
        head: Head,
        description: EngineDescription,
        *,
        max_rows: int,
        max_tokens: int,
    ) -> None:
        super().__init__(max_rows)
        self._encoder = encoder
        self._head = head
        self._description = description
        self._max_tokens = max_tokens
        self._output = _TENSORS[head.task]
        self._num_outputs = head.num_outputs(description.sizes.hidden_size)

    def shutdown(self) -> None:
        """Let go of the engine; idempotent."""
        super().shutdown()
        self._encoder = None

    def _prepare(self, batch: Sequence[BatchRow]) -> Callable[[Answers], None]:
        shared_options(batch)
        options = batch[0].options
        check_task(options.get("task", self._head.task), {self._head.task})
        pooling = options.get("pooling")
        if pooling is not None and (self._head.task is not Task.EMBED or pooling not in POOLINGS):
            raise InvalidRequest(
                f"pooling is {pooling!r}; an embedding takes {', '.join(POOLINGS)}",
                field="options.pooling",
            )
        check_known_options(batch[0], "pooling")
        types = [self._check(row) for row in batch]
        return lambda answers: self._answer(batch, types, pooling, answers)

    def _check(self, row: BatchRow) -> list[int]:
        """Return the row's token types; refuse a bad row."""
        vocab_size = self._description.vocab_size
        check_ids(row.token_ids, vocab_size, self._max_tokens, "token_ids")
        check_outputs(row, {self._output: (self._num_outputs,)})
        num_types = self._description.num_token_types
        types = read_ids(row, "token_type_ids") or [0] * len(row.token_ids)
        if len(types) != len(row.token_ids) or min(types) < 0 or max(types) >= max(1, num_types):
            raise InvalidRequest(
                f"token_type_ids must be {len(row.token_ids)} numbers below {max(1, num_types)}",
                field="tensors.token_type_ids",
            )
        return types

    def _answer(
        self,
        batch: Sequence[BatchRow],
        types: list[list[int]],
        pooling: str | None,
        answers: Answers,
    ) -> None:
        hidden = self._hidden([list(row.token_ids) for row in batch], types)
        lengths = np.array([len(row.token_ids) for row in batch])
        if self._head.task is Task.EMBED:
            results = self._head.embed(hidden, lengths, pooling)
        else:
            results = self._head.classify(hidden, lengths)
        for index, result in enumerate(results):
            answers.finish(index, {self._output: result})

    def _hidden(
        self, token_ids: list[list[int]], types: list[list[int]]
    ) -> npt.NDArray[np.float32]:
        """Return the last hidden states, float32 `[rows, longest, hidden_size]`."""
        # Zeros are what the engine takes by itself; without a table it takes no types at all.
        has_types = any(map(any, types))
        with engine_errors():
            output = self._encoder.forward_batch(
                token_ids, token_type_ids=types if has_types else None
            )
            view = output.last_hidden_state.to_device(ctranslate2.Device.cpu)
            return np.array(view.to(ctranslate2.DataType.float32))
