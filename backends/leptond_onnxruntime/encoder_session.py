"""Encoders: rows of like lengths through the graph together, then the model's own head in numpy.

`leptond.backend.encoder_rows` says how rows are asked and answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from leptond.backend import BatchRow
from leptond.backend.answers import Answers
from leptond.backend.encoder_rows import CheckedRows, EncoderRows
from leptond.backend.heads import POOLINGS, Head
from leptond.backend.whole_calls import WholeCallSession
from leptond.errors import InvariantViolation
from leptond_onnxruntime.graphs import Graph
from leptond_onnxruntime.importer import encoder_io as io

__all__ = ["MAX_RUN_CELLS", "EncoderSession", "plan_encoder_runs"]

MAX_RUN_CELLS = 4096
"""Most cells (rows times the longest) of one engine run, unless one row has more.

Bounds the memory of a run, which the engine keeps, and how long it takes: a session is interrupted
between runs.
"""


class EncoderSession(WholeCallSession):
    """A `BatchSession` over one encoder's graph."""

    def __init__(
        self,
        spec: io.EncoderSpec,
        graph: Graph,
        head: Head,
        *,
        max_rows: int,
        max_tokens: int,
    ) -> None:
        super().__init__(max_rows)
        self._spec = spec
        self._graph: Graph | None = graph
        self._rows = EncoderRows(
            head,
            vocab_size=spec.vocab_size,
            hidden_size=spec.hidden_size,
            max_tokens=max_tokens,
            num_token_types=spec.num_token_types,
            poolings=() if spec.is_pooled else POOLINGS,
        )

    def shutdown(self) -> None:
        """Let go of the engine; idempotent."""
        super().shutdown()
        self._graph = None

    def _prepare(self, batch: Sequence[BatchRow]) -> Callable[[Answers], None]:
        checked = self._rows.check(batch)
        return lambda answers: self._answer(checked, answers)

    def _answer(self, rows: CheckedRows, answers: Answers) -> None:
        lengths = [len(ids) for ids in rows.token_ids]
        for indices in plan_encoder_runs(lengths):
            if answers.is_interrupted:
                return
            output = self._run(rows, indices)
            if self._spec.is_pooled:  # to the head, rows of one token
                hidden, counts = output[:, np.newaxis], [1] * len(indices)
            else:
                hidden, counts = output, [lengths[index] for index in indices]
            self._rows.answer(answers, indices, hidden, counts, rows.pooling)

    def _run(self, rows: CheckedRows, indices: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the graph's output for some of the rows."""
        if self._graph is None:
            raise InvariantViolation("a session was used after its shutdown")
        token_ids = [rows.token_ids[index] for index in indices]
        shape = (len(indices), max(map(len, token_ids)))
        inputs = {io.INPUT_IDS: _padded(token_ids, shape)}
        inputs[io.ATTENTION_MASK] = _padded([[1] * len(ids) for ids in token_ids], shape)
        if self._spec.num_token_types:
            types = [rows.token_types[index] for index in indices]
            inputs[io.TOKEN_TYPE_IDS] = _padded(types, shape)
        size = self._spec.hidden_size
        output = np.empty((shape[0], size) if self._spec.is_pooled else (*shape, size), np.float32)
        binding = self._graph.bind()
        for name, array in inputs.items():
            binding.feed(name, array)
        binding.fill(self._spec.output, output)
        binding.run()
        return output


def plan_encoder_runs(lengths: Sequence[int]) -> list[list[int]]:
    """Cut rows of these lengths into runs, longest rows first; answer their indices.

    A run has at most `MAX_RUN_CELLS` cells, or one row.
    """
    runs: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if runs and (len(runs[-1]) + 1) * lengths[runs[-1][0]] <= MAX_RUN_CELLS:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


def _padded(lines: Sequence[Sequence[int]], shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    padded = np.zeros(shape, np.int64)
    for line, values in zip(padded, lines, strict=True):
        line[: len(values)] = values
    return padded
