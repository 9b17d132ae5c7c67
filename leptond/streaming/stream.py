"""One answer on its way from a worker thread to a coroutine.

The worker appends to a list and puts the stream on its bridge's list of touched streams; the
bridge wakes the reader on the loop. No lock: there is one writer and one reader, and each step
below is one operation that the interpreter does not divide.

I1  Items leave in the order pushed; none is lost, none is doubled.
I2  A reader that waits is woken by the first flush after its items are due, or by its timer; for
    items that have to wait the loop is not woken.
I3  The end, or the error, comes after every item pushed before it.
I4  A worker that was told "no room" is woken when there is room again.

Both wake-ups rest on an order. The worker writes an item and then looks at `_is_touched`; the loop
clears `_is_touched` and then looks at the items. The worker says that it waits for room and then
looks at the items again; the loop takes the items and then looks whether the worker waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from leptond.errors import InvariantViolation, LeptondError
from leptond.types import StreamPacing

__all__ = ["ResponseStream"]

ItemT = TypeVar("ItemT")
FinalT = TypeVar("FinalT")


class ResponseStream(Generic[ItemT, FinalT]):
    """A `ResponseSink` whose reader is a coroutine. Made by `LoopBridge.open_stream`."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_error",
        "_final",
        "_interval_s",
        "_interval_tokens",
        "_is_cancelled",
        "_is_ended",
        "_is_touched",
        "_is_worker_waiting",
        "_items",
        "_last_left",
        "_loop",
        "_max_buffered",
        "_on_cancel",
        "_timer",
        "_touched",
        "_waiter",
        "_wake_worker",
        "_with_writer_since",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        touched: deque[ResponseStream[Any, Any]],
        *,
        clock: Callable[[], float],
        pacing: StreamPacing,
        max_buffered: int,
        on_cancel: Callable[[], None] | None,
    ) -> None:
        self._loop = loop
        self._touched = touched
        self._clock = clock
        self._interval_s = pacing.interval_s
        interval_tokens = pacing.interval_tokens
        if interval_tokens < 1:
            interval_tokens = max_buffered if pacing.interval_s > 0 else 1
        # A full buffer is always due: its worker pauses, so nothing more would come.
        self._interval_tokens = min(interval_tokens, max_buffered)
        self._max_buffered = max_buffered
        self._on_cancel = on_cancel
        self._wake_worker: Callable[[], None] | None = None
        self._items: list[ItemT] = []
        self._final: FinalT | None = None
        self._error: LeptondError | None = None
        self._is_ended = False
        self._is_cancelled = False
        self._is_touched = False
        self._is_worker_waiting = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last_left: float | None = None
        self._with_writer_since: float | None = None

    # ------------------------------------------------------------------ the worker's side
    def attach(self, wake: Callable[[], None]) -> None:
        """See `ResponseSink.attach`."""
        self._wake_worker = wake

    def push(self, item: ItemT) -> None:
        """See `ResponseSink.push`."""
        self._items.append(item)
        if not self._is_touched and self._may_be_due():
            self._is_touched = True
            self._touched.append(self)

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
        if len(self._items) < self._max_buffered:
            return True
        self._is_worker_waiting = True
        return len(self._items) < self._max_buffered

    def _may_be_due(self) -> bool:
        """Whether the loop must look: waking it for items that have to wait costs like a message.

        The reader may take items meanwhile; it looks at what is left before it waits.
        """
        num_items = len(self._items)
        if num_items >= self._interval_tokens or self._last_left is None:
            return True
        return num_items == 1 and self._interval_s > 0  # the loop is to start its timer

    def _end(self, final: FinalT | None, error: LeptondError | None) -> None:
        if self._is_ended:
            raise InvariantViolation("a stream was ended twice")
        self._final = final
        self._error = error
        self._is_ended = True
        if not self._is_touched:
            self._is_touched = True
            self._touched.append(self)

    # ------------------------------------------------------------------ the reader's side
    async def next(self) -> list[ItemT]:
        """Wait until items are due by the stream's pacing and take all of them.

        After `cancel` nothing is due but the end. Thread: the loop; one reader at a time.

        Returns:
            The items since the last call, in order; an empty list when the answer has ended.

        Raises:
            LeptondError: what the worker failed the stream with, after the last item.
        """
        self._with_writer_since = None
        while not self._is_due():
            await self._wait()
        items = self._take()
        if items:
            self._last_left = self._with_writer_since = self._clock()
        elif self._error is not None:
            raise self._error
        return items

    @property
    def final(self) -> FinalT:
        """What the worker finished with. Only once `next` has returned an empty list."""
        if self._final is None:
            raise InvariantViolation("a stream that has not finished has no final value")
        return self._final

    @property
    def is_finished(self) -> bool:
        """Whether it has ended well and `next` would return an empty list at once."""
        return self._is_ended and self._error is None and not self._items

    def cancel(self) -> None:
        """Tell the worker that nobody reads any more. Idempotent; a no-op once it has ended."""
        if self._is_cancelled or self._is_ended:
            return
        self._is_cancelled = True
        self._items.clear()
        for callback in (self._on_cancel, self._wake_worker):
            if callback is not None:
                callback()

    @property
    def with_writer_since(self) -> float | None:
        """When the reader took items that it still writes out; None while it waits for more."""
        return self._with_writer_since

    def _take(self) -> list[ItemT]:
        # The worker may append meanwhile: what it appends is beyond `num_items` and stays.
        num_items = len(self._items)
        items = self._items[:num_items]
        del self._items[:num_items]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_cancelled:
            return []
        if self._is_worker_waiting:
            self._is_worker_waiting = False
            if self._wake_worker is not None:
                self._wake_worker()
        return items

    def _is_due(self) -> bool:
        if self._is_ended:
            return True
        num_items = len(self._items)
        if num_items == 0 or self._is_cancelled:
            return False
        if self._last_left is None or num_items >= self._interval_tokens:
            return True
        return 0 < self._interval_s <= self._clock() - self._last_left

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise InvariantViolation("a stream has two readers")
        self._waiter = self._loop.create_future()
        self._arm_timer()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _arm_timer(self) -> None:
        """Have the items that wait leave by time, if that is how the stream is paced."""
        if self._timer is not None or self._interval_s <= 0 or not self._items:
            return
        if self._last_left is not None and not self._is_cancelled:
            delay_s = self._last_left + self._interval_s - self._clock()
            self._timer = self._loop.call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._wake_reader()

    def _wake_reader(self) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self._is_due():
            waiter.set_result(None)
        else:
            self._arm_timer()

    def _deliver(self) -> None:
        """Look what the worker has put. Called by the bridge, on the loop."""
        self._is_touched = False
        self._wake_reader()
