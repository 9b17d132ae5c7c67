"""Wakes one event loop for what worker threads have put into its streams.

A worker answers many streams in one step and then calls `flush` once: one wake-up of the loop
serves them all. Several workers may share one bridge.

I1  A stream that is touched is on the list of touched streams until the loop has looked at it.
I2  While that list is not empty after a flush, a call of `_deliver` is scheduled.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from leptond.streaming.stream import ResponseStream
from leptond.types import StreamPacing

__all__ = ["LoopBridge"]


class LoopBridge:
    """The streams of one event loop.

    Args:
        loop: where the readers run.
        clock: monotonic seconds, for pacing.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._touched: deque[ResponseStream[Any, Any]] = deque()
        self._is_scheduled = False

    def open_stream(
        self,
        pacing: StreamPacing,
        *,
        max_buffered: int = 1024,
        on_cancel: Callable[[], None] | None = None,
    ) -> ResponseStream[Any, Any]:
        """Make a stream. Thread: any, its reader's side on the loop only.

        Args:
            pacing: how items are gathered; `interval_tokens` below 1 leaves it to the interval.
            max_buffered: items waiting for the reader from which `has_room` is False.
            on_cancel: called on the loop when the reader cancels, besides the attached worker.
        """
        return ResponseStream(
            self._loop,
            self._touched,
            clock=self._clock,
            pacing=pacing,
            max_buffered=max_buffered,
            on_cancel=on_cancel,
        )

    def flush(self) -> None:
        """Wake the loop once for every stream touched since. Thread: any.

        A loop that is closed has no readers: what was put for them is dropped.
        """
        if not self._touched or self._is_scheduled:
            return
        # Set before the call: set after it, it could hide a delivery that is already over.
        self._is_scheduled = True
        if not self.post(self._deliver):
            self._is_scheduled = False
            self._touched.clear()

    def post(self, callback: Callable[..., object], *args: object) -> bool:
        """Call `callback(*args)` on the loop, soon. Thread: any.

        Returns False when the loop is closed: then nobody is left to hear it.
        """
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            return False
        return True

    def _deliver(self) -> None:
        # Cleared before the list is read: a worker that still sees True put its stream before.
        self._is_scheduled = False
        while self._touched:
            self._touched.popleft()._deliver()
