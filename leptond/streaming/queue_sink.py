"""An answer read by a thread: for benchmarks and tests in the worker's own process."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from leptond.errors import InvariantViolation, LeptondError

__all__ = ["QueueSink"]

ItemT = TypeVar("ItemT")
FinalT = TypeVar("FinalT")


class QueueSink(Generic[ItemT, FinalT]):
    """A `ResponseSink` to iterate over; iteration blocks until the answer has ended.

    Args:
        max_buffered: items waiting for the reader from which `has_room` is False; 0 is no limit.

    Raises:
        LeptondError: from iteration, what the worker failed the answer with.
    """

    def __init__(self, max_buffered: int = 0) -> None:
        self._max_buffered = max_buffered
        # None is the end: an item is never None.
        self._items: queue.SimpleQueue[ItemT | None] = queue.SimpleQueue()
        self._final: FinalT | None = None
        self._error: LeptondError | None = None
        self._is_ended = False
        self._is_drained = False
        self._is_cancelled = False
        self._is_worker_waiting = False
        self._wake_worker: Callable[[], None] | None = None

    # ------------------------------------------------------------------ the worker's side
    def attach(self, wake: Callable[[], None]) -> None:
        """See `ResponseSink.attach`."""
        self._wake_worker = wake

    def push(self, item: ItemT) -> None:
        """See `ResponseSink.push`."""
        self._items.put(item)

    def finish(self, final: FinalT) -> None:
        """See `ResponseSink.finish`."""
        self._end(final, None)

    def fail(self, error: LeptondError) -> None:
        """See `ResponseSink.fail`."""
        self._end(None, error)

    @property
    def is_cancelled(self) -> bool:
        """See `ResponseSink.is_cancelled`."""
        return self._is_cancelled

    @property
    def has_room(self) -> bool:
        """See `ResponseSink.has_room`."""
        if self._max_buffered == 0 or self._items.qsize() < self._max_buffered:
            return True
        # Said before looking again, so that the reader cannot miss it.
        self._is_worker_waiting = True
        return self._items.qsize() < self._max_buffered

    def _end(self, final: FinalT | None, error: LeptondError | None) -> None:
        if self._is_ended:
            raise InvariantViolation("a sink was ended twice")
        self._final, self._error, self._is_ended = final, error, True
        self._items.put(None)

    # ------------------------------------------------------------------ the reader's side
    def __iter__(self) -> Iterator[ItemT]:
        while not self._is_drained:
            item = self._items.get()
            if item is None:
                self._is_drained = True
                break
            if self._is_worker_waiting and self._items.qsize() < self._max_buffered:
                self._is_worker_waiting = False
                self._wake()
            yield item
        if self._error is not None:
            raise self._error

    @property
    def final(self) -> FinalT:
        """What the worker finished with; only once iteration has ended."""
        if not self._is_drained or self._final is None:
            raise InvariantViolation("a sink that has not finished has no final value")
        return self._final

    def cancel(self) -> None:
        """Tell the worker that nobody reads any more. Idempotent."""
        if not self._is_cancelled:
            self._is_cancelled = True
            self._wake()

    def _wake(self) -> None:
        if self._wake_worker is not None:
            self._wake_worker()
