"""Runs the body graph: packs the pieces of a run, binds their slots, gives hidden rows.

The 4 × num_layers names of the cache cost 0.4 ms to bind for 30 layers, so bindings are kept by
range of slots, each with the layout of its last run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from leptond_onnxruntime.arena import KvArena
from leptond_onnxruntime.graphs import Binding, Graph
from leptond_onnxruntime.importer import graph_io as io
from leptond_onnxruntime.run_layout import RunLayout, run_shape
from leptond_onnxruntime.runs import EngineRun

__all__ = ["MAX_RANGES", "BodyRunner"]

MAX_RANGES = 64
"""Ranges whose bindings are kept; each is some 20 KB of engine objects."""


class BodyRunner:
    """The body of one session, on its thread."""

    def __init__(self, graph: Graph, arena: KvArena) -> None:
        self._graph = graph
        self._arena = arena
        self._ranges: dict[tuple[int, int], _SlotRange] = {}

    @property
    def num_ranges(self) -> int:
        """Ranges whose bindings are kept."""
        return len(self._ranges)

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
        key = run.first_index, run.num_slots
        slots = self._ranges.pop(key, None)
        if slots is None:
            slots = _SlotRange(self._bind(*key))
            if len(self._ranges) == MAX_RANGES:
                del self._ranges[next(iter(self._ranges))]
        self._ranges[key] = slots  # the latest used comes last
        slots.run(run, hidden)

    def _bind(self, first: int, num_slots: int) -> Binding:
        """A binding with the cache of a range as past and present."""
        binding = self._graph.bind()
        layout = self._arena.layout
        shape = layout.shape(num_slots)
        for layer in range(layout.num_layers):
            for slab, past, present in (
                (2 * layer, io.past_key(layer), io.present_key(layer)),
                (2 * layer + 1, io.past_value(layer), io.present_value(layer)),
            ):
                address = self._arena.address + layout.offset(slab, first)
                binding.share(past, present, address, shape, layout.dtype)
        return binding


class _SlotRange:
    """The binding of a range of slots, with what its last run was like."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._shape: object = None
        self._layout: RunLayout | None = None
        self._hidden: npt.NDArray[Any] | None = None
        self._target: npt.NDArray[Any] = np.empty(0)

    def run(self, run: EngineRun, hidden: npt.NDArray[Any]) -> None:
        """See `BodyRunner.run`."""
        shape = run_shape(run)
        if self._layout is not None and shape == self._shape:
            self._layout.write(run)
        else:
            self._layout, self._shape, self._hidden = RunLayout(run), shape, None
        lines = self._layout.lines
        is_slice = len(lines) == 0 or lines[-1] - lines[0] + 1 == len(lines)
        if self._hidden is not hidden:
            self._hidden = hidden
            self._target = hidden[lines[0] : lines[-1] + 1] if len(lines) else hidden[:0]
            if not is_slice:
                self._target = np.empty((len(lines), hidden.shape[1]), hidden.dtype)
        for name, array in self._layout.feeds.items():
            self._binding.feed(name, array)
        self._binding.fill(io.HIDDEN, self._target)
        self._binding.run()
        if not is_slice:
            hidden[lines] = self._target
