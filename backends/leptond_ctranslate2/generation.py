"""Decoding as translators and generators share it: the same loop over tokens, the same results."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.backend import EmittedChunk
from leptond.backend.answers import Answers
from leptond_ctranslate2.rows import DecodeOptions

__all__ = ["AnswerRow", "StreamedRows", "hypothesis_tensors"]


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One row of a call that decodes.

    Attributes:
        index: its place in the run.
        prompt: what the engine is given, as it calls the tokens.
        prefix: how its answer begins, likewise; the engine gives it back, the caller knows it.
        max_tokens: most tokens of its answer, the prefix aside.
        options: shared by the rows of a call but for `max_tokens`.
        stop_token_ids: end its answer.
    """

    index: int
    prompt: list[str]
    prefix: list[str]
    max_tokens: int
    options: DecodeOptions
    stop_token_ids: Collection[int]


class StreamedRows:
    """Gives each token of a call to the row that it belongs to.

    Args:
        rows: in the order of the engine's call.
    """

    def __init__(self, rows: Sequence[AnswerRow], answers: Answers) -> None:
        self._rows = rows
        self._answers = answers
        self._num_seen = [0] * len(rows)

    def handle(self, step: Any) -> bool:
        """Take one step of the engine; True ends its row."""
        row = self._rows[step.batch_id]
        if not self._answers.is_open(row.index):
            return True
        self._num_seen[step.batch_id] += 1
        num_tokens = self._num_seen[step.batch_id] - len(row.prefix)
        if num_tokens <= 0:
            return False
        token = int(step.token_id)
        is_final = step.is_last or num_tokens >= row.max_tokens or token in row.stop_token_ids
        scores = (float(step.log_prob),) if row.options.has_plain_scores else ()
        return not self._answers.give(row.index, EmittedChunk((token,), scores, is_final=is_final))

    def finish(self) -> None:
        """Close rows that the engine ended without a token."""
        for row in self._rows:
            self._answers.finish_empty(row.index)


def hypothesis_tensors(
    hypotheses: Sequence[Sequence[int]], scores: Sequence[float], row: AnswerRow
) -> dict[str, npt.NDArray[Any]]:
    """Return the answers of one row, best first, with their stop tokens and without its prefix.

    `hypotheses` int64 `[h, longest]`, padded with -1; `scores` float32 `[h]`.
    """
    begin = len(row.prefix)
    answers = [ids[begin : begin + row.max_tokens] for ids in hypotheses]
    padded = np.full((len(answers), max(map(len, answers), default=0)), -1, np.int64)
    for line, ids in zip(padded, answers, strict=True):
        line[: len(ids)] = ids
    return {"hypotheses": padded, "scores": np.array(scores, np.float32)}
