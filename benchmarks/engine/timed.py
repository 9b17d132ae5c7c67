"""Graphs that note how long their runs and their binding take: nothing of the engine is changed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

from leptond_onnxruntime.graphs import Binding, Graph

__all__ = ["PartTimes", "timed"]


class PartTimes:
    """Seconds by part of a step, since the last `take`."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    def measured(self, part: str, call: Callable[..., None]) -> Callable[..., None]:
        """`call`, with its time added to `part`."""

        def timed_call(*args: Any) -> None:
            start = time.perf_counter()
            call(*args)
            self._seconds[part] += time.perf_counter() - start

        return timed_call

    def take(self) -> dict[str, float]:
        """What was noted; starts again from nothing."""
        seconds, self._seconds = dict(self._seconds), defaultdict(float)
        return seconds


class _TimedGraph:
    """Stands in for a graph: gives bindings whose calls are measured."""

    def __init__(self, graph: Graph, name: str, times: PartTimes) -> None:
        self._graph = graph
        self._name = name
        self._times = times

    def bind(self) -> Binding:
        """A binding of the graph."""
        binding = self._graph.bind()
        parts = {"feed": "binding", "fill": "binding", "share": "binding", "run": self._name}
        for call, part in parts.items():
            setattr(binding, call, self._times.measured(part, getattr(binding, call)))
        return binding


def timed(graph: Graph, name: str, times: PartTimes) -> Graph:
    """`graph`, noting in `times` what its runs take as `name`, and `binding`."""
    return cast("Graph", _TimedGraph(graph, name, times))
