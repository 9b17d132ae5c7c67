"""What a worker sees of a reader: a place to put items that never blocks.

The worker's side of every stream; `ResponseStream` and `QueueSink` are the two that exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from leptond.errors import LeptondError

__all__ = ["ResponseSink"]

ItemT_contra = TypeVar("ItemT_contra", contravariant=True)
FinalT_contra = TypeVar("FinalT_contra", contravariant=True)


class ResponseSink(Protocol[ItemT_contra, FinalT_contra]):
    """Takes one request's answer, item by item. Thread: the worker that answers, unless said.

    Every sink is ended by exactly one call of `finish` or `fail`, a cancelled one too; a second
    raises `InvariantViolation`. What was pushed becomes visible at the worker's next flush.
    """

    def attach(self, wake: Callable[[], None]) -> None:
        """Have `wake` called when the reader cancels, or has room again. Once, at admission.

        `wake` is called on the reader's thread: it must not block. A reader that cancelled
        before is not reported: look at `is_cancelled` after attaching.
        """
        ...

    def push(self, item: ItemT_contra) -> None:
        """Give the reader one item. Never blocks, whatever `has_room` says."""
        ...

    def finish(self, final: FinalT_contra) -> None:
        """End the answer; `final` is what is known of it as a whole."""
        ...

    def fail(self, error: LeptondError) -> None:
        """End the answer with an error, which the reader gets after the items pushed before."""
        ...

    @property
    def is_cancelled(self) -> bool:
        """Whether the reader is gone."""
        ...

    @property
    def has_room(self) -> bool:
        """False while the reader is far behind: make nothing more for it.

        A False is followed by a call of the attached `wake` once there is room again.
        """
        ...
