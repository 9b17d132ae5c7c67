"""Rows of an encoder's whole calls: how they are asked, checked and answered, whatever the engine.

task = "embed"       tensors {"embedding": float32 [dimensions]}, not normalised
       pooling       absent: the model's own; else "mean", "cls" or "last"
task = "classify"    tensors {"logits": float32 [num_labels]}, raw

A row's `token_ids` have their special tokens; `tensors["token_type_ids"]`, int64 [len], tells the
texts of a pair apart where the model does, and is all zeros where it is absent.

Engines end at the hidden states; `leptond.backend.heads` follows. Used on a session's own thread.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from leptond.backend.answers import Answers
from leptond.backend.batch_checks import (
    check_ids,
    check_known_options,
    check_outputs,
    check_task,
    read_ids,
    shared_options,
)
from leptond.backend.heads import POOLINGS, Head
from leptond.backend.rows import BatchRow, FloatArray
from leptond.errors import InvalidRequest
from leptond.types import Task

__all__ = ["CheckedRows", "EncoderRows"]

_OUTPUTS = {Task.EMBED: "embedding", Task.CLASSIFY: "logits"}


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """Rows of one run that may go through the engine.

    Attributes:
        token_ids: of each row.
        token_types: of each row, as many.
        pooling: None is the model's own.
    """

    token_ids: Sequence[Sequence[int]]
    token_types: Sequence[Sequence[int]]
    pooling: str | None

    @property
    def has_types(self) -> bool:
        """Whether any token is of another type than the first."""
        return any(map(any, self.token_types))


class EncoderRows:
    """What rows of one model may be.

    Args:
        head: the model's own.
        hidden_size: values per token that the head is given.
        max_tokens: longest row.
        num_token_types: 0 when the model has none.
        poolings: what a row may ask for; none where the engine's answer is pooled already.

    Raises:
        ModelFailed: the head does not take `hidden_size` values.
    """

    def __init__(
        self,
        head: Head,
        *,
        vocab_size: int,
        hidden_size: int,
        max_tokens: int,
        num_token_types: int,
        poolings: Collection[str] = POOLINGS,
    ) -> None:
        self._head = head
        self._vocab_size = vocab_size
        self._max_tokens = max_tokens
        self._num_types = max(1, num_token_types)
        self._poolings = poolings if head.task is Task.EMBED else ()
        self._output = _OUTPUTS[head.task]
        self._num_outputs = head.num_outputs(hidden_size)

    def check(self, batch: Sequence[BatchRow]) -> CheckedRows:
        """Check every row of a run.

        Raises:
            InvalidRequest: naming the field of the first that is wrong.
            RequestTooLarge: a row is too long.
        """
        shared_options(batch)
        options = batch[0].options
        check_task(options.get("task", self._head.task), {self._head.task})
        pooling = options.get("pooling")
        if pooling is not None and pooling not in self._poolings:
            known = ", ".join(self._poolings) or "none but its own"
            raise InvalidRequest(
                f"pooling is {pooling!r}; this model takes {known}", field="options.pooling"
            )
        check_known_options(batch[0], "pooling")
        types = [self._check_row(row) for row in batch]
        return CheckedRows([row.token_ids for row in batch], types, pooling)

    def answer(
        self,
        answers: Answers,
        indices: Sequence[int],
        hidden: FloatArray,
        lengths: Sequence[int],
        pooling: str | None,
    ) -> None:
        """Give rows what follows from their hidden states.

        Args:
            answers: of the run.
            indices: places in it of the rows that `hidden` holds.
            hidden: float32 `[rows, longest, hidden_size]`, finite in its padding too.
            lengths: tokens of each row.
            pooling: None is the model's own.
        """
        counts = np.array(lengths)
        if self._head.task is Task.EMBED:
            results = self._head.embed(hidden, counts, pooling)
        else:
            results = self._head.classify(hidden, counts)
        for index, result in zip(indices, results, strict=True):
            answers.finish(index, {self._output: result})

    def _check_row(self, row: BatchRow) -> list[int]:
        """Return the row's token types; refuse a bad row."""
        length = len(row.token_ids)
        check_ids(row.token_ids, self._vocab_size, self._max_tokens, "token_ids")
        check_outputs(row, {self._output: (self._num_outputs,)})
        types = read_ids(row, "token_type_ids") or [0] * length
        if len(types) != length or min(types) < 0 or max(types) >= self._num_types:
            raise InvalidRequest(
                f"token_type_ids must be {length} numbers below {self._num_types}",
                field="tensors.token_type_ids",
            )
        return types
