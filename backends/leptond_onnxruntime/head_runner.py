"""Runs the head graph over hidden rows, in pieces when they are many, and assembles the answers.

The full logits are written where they stay, into one buffer that every step uses again; a step of
many lines (logprobs of a prompt) gets a larger one that is freed with the next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.backend import RowPick, StepResult
from leptond_onnxruntime.graphs import Graph
from leptond_onnxruntime.importer import graph_io as io

__all__ = ["MAX_HEAD_ROWS", "HeadRunner"]

FloatArray = npt.NDArray[np.float32]

MAX_HEAD_ROWS = 64
"""Lines of one run: 64 × 49 152 logits are 13 MB, and the graph makes a few copies of them."""

_RAW = RowPick()
# Always the same arrays: what is bound already need not be bound again.
_ZERO = np.zeros((1, 1), np.float32)
_ONE = np.ones((1, 1), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Buffers:
    """Outputs of one run, by their names in the graph; written again by the next."""

    by_name: dict[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.by_name[io.LOGITS])

    def result(self) -> StepResult:
        """Copies of the small arrays, and the logits where they lie."""
        return StepResult(
            candidate_ids=self.by_name[io.CANDIDATE_IDS].copy(),
            candidate_logits=self.by_name[io.CANDIDATE_LOGITS].copy(),
            log_normalizer=self.by_name[io.LOG_NORMALIZER].copy(),
            raw_log_normalizer=self.by_name[io.RAW_LOG_NORMALIZER].copy(),
            logits=self.by_name[io.LOGITS],
        )

    def part(self, lines: slice) -> _Buffers:
        """The same memory, some lines of it."""
        return _Buffers({name: array[lines] for name, array in self.by_name.items()})


class HeadRunner:
    """The head of one session, on its thread."""

    def __init__(self, graph: Graph, spec: io.GraphSpec) -> None:
        self._binding = graph.bind()
        self._spec = spec
        self._room = self._allocate(MAX_HEAD_ROWS)
        self._buffers = self._room

    def run(self, hidden: npt.NDArray[Any], picks: Sequence[RowPick | None]) -> StepResult:
        """Answer `hidden`, hidden_dtype `[lines, hidden_size]`, line by line with its pick.

        Raises:
            BackendFault, BackendCrashed: a run failed.
        """
        num_lines = len(hidden)
        buffers = self._buffers_of(num_lines)
        if 0 < num_lines <= MAX_HEAD_ROWS:
            self._run_once(hidden, picks, buffers)
        elif num_lines:
            for start in range(0, num_lines, MAX_HEAD_ROWS):
                lines = slice(start, start + MAX_HEAD_ROWS)
                self._run_once(hidden[lines], picks[lines], buffers.part(lines))
        return buffers.result()

    def _run_once(
        self, hidden: npt.NDArray[Any], given: Sequence[RowPick | None], buffers: _Buffers
    ) -> None:
        picks = [_RAW if pick is None else pick for pick in given]
        binding = self._binding
        binding.feed(io.HIDDEN, hidden)
        binding.feed(io.REPETITION, self._stacked([pick.repetition for pick in picks], _ONE))
        binding.feed(io.BIAS, self._stacked([pick.bias for pick in picks], _ZERO))
        binding.feed(io.TEMPERATURE, _temperatures(picks))
        for name, array in buffers.by_name.items():
            binding.fill(name, array)
        binding.run()

    def _stacked(self, values: Sequence[FloatArray | None], neutral: FloatArray) -> FloatArray:
        """One line per value: `neutral` when none is given, `[1, vocab]` when all are the same."""
        first = values[0]
        if all(value is first for value in values):
            return neutral if first is None else first[np.newaxis]
        lines = np.empty((len(values), self._spec.vocab_size), np.float32)
        for line, value in zip(lines, values, strict=True):
            line[:] = neutral[0] if value is None else value
        return lines

    def _buffers_of(self, num_lines: int) -> _Buffers:
        """Buffers of `num_lines`; the same ones as for the last step when it had as many."""
        if len(self._buffers) != num_lines:
            size = max(num_lines, MAX_HEAD_ROWS)
            if size != len(self._room):
                self._room = self._allocate(size)
            self._buffers = self._room.part(slice(num_lines))
        return self._buffers

    def _allocate(self, num_lines: int) -> _Buffers:
        candidates = (num_lines, self._spec.num_candidates)
        return _Buffers(
            {
                io.LOGITS: np.empty((num_lines, self._spec.vocab_size), np.float32),
                io.CANDIDATE_IDS: np.empty(candidates, np.int64),
                io.CANDIDATE_LOGITS: np.empty(candidates, np.float32),
                io.LOG_NORMALIZER: np.empty(num_lines, np.float32),
                io.RAW_LOG_NORMALIZER: np.empty(num_lines, np.float32),
            }
        )


def _temperatures(picks: Sequence[RowPick]) -> FloatArray:
    """`[lines, 1]`, or `[1, 1]` when all are the same."""
    values = [pick.temperature for pick in picks]
    if all(value == values[0] for value in values):
        if values[0] == 1.0:
            return _ONE
        del values[1:]
    return np.array(values, np.float32)[:, np.newaxis]
