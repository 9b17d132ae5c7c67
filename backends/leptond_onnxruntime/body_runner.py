"""Runs the body graph: packs the pieces of a run, binds their slots, gives hidden rows.

Packing costs 30 µs and binding the small inputs 10 µs. The 4 × num_layers names of the cache cost
0.4 ms for 30 layers, so bindings are kept by range of slots.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from leptond_onnxruntime.arena import KvArena
from leptond_onnxruntime.graphs import Binding, Graph
from leptond_onnxruntime.importer import graph_io as io
from leptond_onnxruntime.runs import EngineRun

__all__ = ["BodyRunner", "pack", "wanted_rows"]

_MAX_BINDINGS = 64  # ranges; each is some 20 KB of engine objects


class BodyRunner:
    """The body of one session, on its thread."""

    def __init__(self, graph: Graph, spec: io.GraphSpec, arena: KvArena) -> None:
        self._graph = graph
        self._spec = spec
        self._arena = arena
        self._hidden_dtype = np.dtype(spec.hidden_dtype)
        self._bindings: dict[tuple[int, int], Binding] = {}

    def run(self, run: EngineRun, hidden: npt.NDArray[Any]) -> None:
        """Append the tokens of `run` to its slots; write the wanted rows of `hidden`.

        Args:
            run: what goes through the engine at once.
            hidden: hidden_dtype `[lines of the step, hidden_size]`; only lines of the run's own
                pieces are written.

        Raises:
            BackendFault, BackendCrashed: the run failed; positions behind each slot's length may
                hold anything.
        """
        lines, rows = wanted_rows(run)
        is_slice = len(lines) == 0 or lines[-1] - lines[0] + 1 == len(lines)
        start = int(lines[0]) if len(lines) else 0
        if is_slice:
            target = hidden[start : start + len(lines)]
        else:
            target = np.empty((len(lines), self._spec.hidden_size), self._hidden_dtype)
        binding = self._binding(run)
        feeds = {**pack(run), io.LOGIT_ROWS: rows}
        for name, array in feeds.items():
            binding.feed(name, array)
        binding.fill(io.HIDDEN, target)
        binding.run()
        if not is_slice:
            hidden[lines] = target

    def _binding(self, run: EngineRun) -> Binding:
        """The binding of the run's range, with the cache bound; the latest are kept."""
        key = run.first_index, run.num_slots
        binding = self._bindings.pop(key, None)
        if binding is None:
            binding = self._graph.bind()
            self._bind_cache(binding, *key)
            if len(self._bindings) == _MAX_BINDINGS:
                del self._bindings[next(iter(self._bindings))]
        self._bindings[key] = binding
        return binding

    def _bind_cache(self, binding: Binding, first: int, num_slots: int) -> None:
        layout = self._arena.layout
        shape = layout.shape(num_slots)
        for layer in range(layout.num_layers):
            for slab, past, present in (
                (2 * layer, io.past_key(layer), io.present_key(layer)),
                (2 * layer + 1, io.past_value(layer), io.present_value(layer)),
            ):
                address = self._arena.address + layout.offset(slab, first)
                binding.share(past, present, address, shape, layout.dtype)


def pack(run: EngineRun) -> dict[str, npt.NDArray[Any]]:
    """The inputs of a run but for `logit_rows`; see `graph_io` for what each means."""
    lengths = np.zeros(run.num_slots, np.int32)
    # A hole keeps one cached token: the smallest that the operator takes, whatever is in the slot.
    totals = np.ones(run.num_slots, np.int32)
    for piece in run.pieces:
        num_tokens = len(piece.token_ids)
        row = piece.index - run.first_index
        lengths[row] = num_tokens
        totals[row] = piece.past + num_tokens
    longest = int(lengths.max())
    starts = np.cumsum(lengths) - lengths
    columns = np.arange(longest)
    is_token = columns < lengths[:, np.newaxis]
    return {
        io.INPUT_IDS: np.concatenate([piece.token_ids for piece in run.pieces]),
        io.GRID: np.where(is_token, starts[:, np.newaxis] + columns, 0),
        io.VALID: np.flatnonzero(is_token),
        io.QUERY_SEQLENS: lengths,
        io.SEQLENS_K: totals - 1,
        io.TOTAL: np.array(max(int(totals.max()), longest), np.int32),
    }


def wanted_rows(run: EngineRun) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Lines of the step's result that the run answers, ascending, and where each token lies.

    Returns:
        lines and logit_rows, int64 `[R]`: line `lines[i]` answers packed token `logit_rows[i]`.
    """
    lines: list[int] = []
    rows: list[int] = []
    end = 0
    for piece in run.pieces:
        end += len(piece.token_ids)
        lines += range(piece.first_line, piece.first_line + piece.num_wanted)
        rows += range(end - piece.num_wanted, end)
    order = np.argsort(np.array(lines, np.int64))
    return np.array(lines, np.int64)[order], np.array(rows, np.int64)[order]
