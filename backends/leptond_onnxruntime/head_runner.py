"""Runs the head graph over hidden rows, in pieces when they are many, and assembles the answers.

The full logits are written where they stay, into one buffer that every step uses again; a step of
many lines (logprobs of a prompt) gets a larger one that is freed with the next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.backend import RowPick, StepResult
from leptond_onnxruntime.graphs import Binding, Graph
from leptond_onnxruntime.importer import graph_io as io

__all__ = ["MAX_HEAD_ROWS", "HeadRunner"]

FloatArray = npt.NDArray[np.float32]

MAX_HEAD_ROWS = 64
"""Lines of one run: 64 × 49 152 logits are 13 MB, and the graph makes a few copies of them."""

_RAW = RowPick()


class HeadRunner:
    """The head of one session, on its thread."""

    def __init__(self, graph: Graph, spec: io.GraphSpec) -> None:
        self._binding: Binding = graph.bind()
        self._spec = spec
        self._logits = self._new_buffer(MAX_HEAD_ROWS)

    def run(self, hidden: npt.NDArray[Any], picks: Sequence[RowPick | None]) -> StepResult:
        """Answer `hidden`, hidden_dtype `[lines, hidden_size]`, line by line with its pick.

        Raises:
            BackendFault, BackendCrashed: a run failed.
        """
        num_lines = len(hidden)
        num_candidates = self._spec.num_candidates
        result = StepResult(
            candidate_ids=np.empty((num_lines, num_candidates), np.int64),
            candidate_logits=np.empty((num_lines, num_candidates), np.float32),
            log_normalizer=np.empty(num_lines, np.float32),
            raw_log_normalizer=np.empty(num_lines, np.float32),
            logits=self._buffer(num_lines),
        )
        for start in range(0, num_lines, MAX_HEAD_ROWS):
            piece = slice(start, start + MAX_HEAD_ROWS)
            self._run_piece(hidden[piece], picks[piece], result, piece)
        return result

    def _run_piece(
        self,
        hidden: npt.NDArray[Any],
        given: Sequence[RowPick | None],
        result: StepResult,
        piece: slice,
    ) -> None:
        binding = self._binding
        picks = [_RAW if pick is None else pick for pick in given]
        feeds = {
            io.HIDDEN: hidden,
            io.REPETITION: self._stacked([pick.repetition for pick in picks], neutral=1.0),
            io.BIAS: self._stacked([pick.bias for pick in picks], neutral=0.0),
            io.TEMPERATURE: _temperatures(picks),
        }
        for name, array in feeds.items():
            binding.feed(name, array)
        binding.fill(io.LOGITS, result.logits[piece])
        binding.fill(io.CANDIDATE_IDS, result.candidate_ids[piece])
        binding.fill(io.CANDIDATE_LOGITS, result.candidate_logits[piece])
        binding.fill(io.LOG_NORMALIZER, result.log_normalizer[piece])
        binding.fill(io.RAW_LOG_NORMALIZER, result.raw_log_normalizer[piece])
        binding.run()

    def _stacked(self, values: Sequence[FloatArray | None], neutral: float) -> FloatArray:
        """One line per value: `[1, 1]` when none is given, `[1, vocab]` when all are the same."""
        first = values[0]
        if all(value is first for value in values):
            if first is None:
                return np.full((1, 1), neutral, np.float32)
            return np.ascontiguousarray(first)[np.newaxis]
        lines = np.empty((len(values), self._spec.vocab_size), np.float32)
        for line, value in zip(lines, values, strict=True):
            line[:] = neutral if value is None else value
        return lines

    def _buffer(self, num_lines: int) -> FloatArray:
        """Room for the logits of `num_lines`; its content is that of the last step."""
        size = max(num_lines, MAX_HEAD_ROWS)
        if size > len(self._logits) or len(self._logits) > MAX_HEAD_ROWS >= num_lines:
            self._logits = self._new_buffer(size)
        return self._logits[:num_lines]

    def _new_buffer(self, num_lines: int) -> FloatArray:
        return np.empty((num_lines, self._spec.vocab_size), np.float32)


def _temperatures(picks: Sequence[RowPick]) -> FloatArray:
    """`[lines, 1]`, or `[1, 1]` when all are the same."""
    values = [pick.temperature for pick in picks]
    if all(value == values[0] for value in values):
        del values[1:]
    return np.array(values, np.float32)[:, np.newaxis]
