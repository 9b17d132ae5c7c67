"""The arrays that tell the body graph what a run is: packing, padding, and wanted rows.

While the same slots decode step after step, only token ids and lengths change: the arrays of a
layout are kept and written again, and nothing has to be bound again on the CPU.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond_onnxruntime.importer import graph_io as io
from leptond_onnxruntime.runs import EngineRun

__all__ = ["RunLayout", "run_shape"]

RunShape = tuple[tuple[int, int, int, int], ...]


def run_shape(run: EngineRun) -> RunShape:
    """All of a run that its layout depends on; runs of one shape may share a layout."""
    return tuple(
        (piece.index, len(piece.token_ids), piece.num_wanted, piece.first_line)
        for piece in run.pieces
    )


class RunLayout:
    """Inputs of the body graph for runs of one shape.

    Attributes:
        feeds: arrays by input name; `graph_io` says what each means. `write` fills the token ids
            and lengths of a run.
        lines: int64 `[R]`, ascending: lines of the step's result that such a run answers, one per
            entry of `logit_rows`.
    """

    def __init__(self, run: EngineRun) -> None:
        lengths = np.zeros(run.num_slots, np.int32)
        self._rows = np.array([piece.index - run.first_index for piece in run.pieces])
        lengths[self._rows] = [len(piece.token_ids) for piece in run.pieces]
        starts = np.cumsum(lengths) - lengths
        columns = np.arange(lengths.max())
        is_token = columns < lengths[:, np.newaxis]
        self.lines, logit_rows = _wanted(run)
        self._input_ids = np.empty(run.num_tokens, np.int64)
        # A hole counts one cached token: the least that the operator takes, whatever it holds.
        self._seqlens_k = np.zeros(run.num_slots, np.int32)
        self._total = np.empty((), np.int32)
        self.feeds: dict[str, npt.NDArray[Any]] = {
            io.INPUT_IDS: self._input_ids,
            io.GRID: np.where(is_token, starts[:, np.newaxis] + columns, 0),
            io.VALID: np.flatnonzero(is_token),
            io.QUERY_SEQLENS: lengths,
            io.SEQLENS_K: self._seqlens_k,
            io.TOTAL: self._total,
            io.LOGIT_ROWS: logit_rows,
        }
        self.write(run)

    def write(self, run: EngineRun) -> None:
        """Take over the token ids and the lengths of another run of the same shape."""
        self._input_ids[:] = list(chain.from_iterable(piece.token_ids for piece in run.pieces))
        totals = [piece.past + len(piece.token_ids) for piece in run.pieces]
        self._seqlens_k[self._rows] = [total - 1 for total in totals]
        self._total[...] = max(totals)


def _wanted(run: EngineRun) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Lines that the run answers, ascending, and which packed token answers each."""
    lines: list[int] = []
    rows: list[int] = []
    end = 0
    for piece in run.pieces:
        end += len(piece.token_ids)
        lines += range(piece.first_line, piece.first_line + piece.num_wanted)
        rows += range(end - piece.num_wanted, end)
    order = np.argsort(np.array(lines, np.int64))
    return np.array(lines, np.int64)[order], np.array(rows, np.int64)[order]
