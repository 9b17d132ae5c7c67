"""What callers ask of a model that answers in whole calls, and what they get back.

Built by the services on the event loop, or by a test; read on any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from leptond.backend import BatchRow, EmittedChunk
from leptond.types import Phase, Usage

__all__ = ["BatchAnswer", "BatchItem", "BatchRequest", "BatchSummary"]


@dataclass(frozen=True, slots=True, eq=False)
class BatchItem:
    """One input of a request.

    Attributes:
        row: its `options` are plain values: rows of equal options share a run.
        cost_tokens: what it takes, at least 1: its tokens; for a beam search, those times the beam.
    """

    row: BatchRow
    cost_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class BatchRequest:
    """Inputs that one caller sent together; each is answered by itself.

    Attributes:
        id: the daemon's own unique id of the call.
        items: at least one.
        deadline: monotonic time by which the last answer must be out; None when there is none.
        priority: higher first; 0 is the default.
    """

    id: str
    items: tuple[BatchItem, ...]
    deadline: float | None = None
    priority: int = 0
    tenant: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class BatchAnswer:
    """Part of the answer to one item, in the order in which the engine makes them.

    Attributes:
        index: of the item in its request.
        chunk: `is_final` closes the item; every item has exactly one final chunk.
    """

    index: int
    chunk: EmittedChunk


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """How a request ended.

    Attributes:
        phases: queue, prefill (first run to the last answer, or to the first token), and decode
            for items answered token by token; consecutive.
    """

    usage: Usage
    phases: tuple[Phase, ...]
