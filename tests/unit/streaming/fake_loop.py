"""An event loop that runs when a test says so, with a clock that a test turns."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")


class FakeFuture:
    """As much of `asyncio.Future` as a waiting reader needs."""

    def __init__(self) -> None:
        self.is_done = False

    def done(self) -> bool:
        return self.is_done

    def set_result(self, _: None) -> None:
        self.is_done = True

    def __await__(self) -> Generator[FakeFuture, None, None]:
        yield self


class FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Closed(RuntimeError):
    """What asyncio raises when a closed loop is called."""


class FakeLoop:
    def __init__(self) -> None:
        self.now = 100.0
        self.num_wakeups = 0
        self.is_loop_closed = False
        self._ready: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._serials = itertools.count()

    @property
    def as_asyncio(self) -> asyncio.AbstractEventLoop:
        return cast(asyncio.AbstractEventLoop, self)

    def clock(self) -> float:
        return self.now

    def is_closed(self) -> bool:
        return self.is_loop_closed

    def create_future(self) -> FakeFuture:
        return FakeFuture()

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        if self.is_loop_closed:
            raise Closed("Event loop is closed")
        self.num_wakeups += 1
        self._ready.append(callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (self.now + delay_s, next(self._serials), timer))
        return timer

    @property
    def num_timers(self) -> int:
        return sum(not timer.is_cancelled for _, _, timer in self._timers)

    def run_ready(self) -> bool:
        """Run what is ready; False when nothing was."""
        if not self._ready:
            return False
        while self._ready:
            self._ready.popleft()()
        return True

    def turn(self, seconds: float) -> None:
        """Let time pass, and the timers of it go off in order."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            if not timer.is_cancelled:
                timer.callback()
        self.now = end


class FakeTask:
    """One coroutine on a `FakeLoop`, advanced as far as it goes."""

    def __init__(self, loop: FakeLoop, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._waits_for: FakeFuture | None = None
        self.is_done = False
        self.result: Any = None

    def advance(self) -> bool:
        """Run ready callbacks and the coroutine; whether it has returned."""
        self._loop.run_ready()
        while not self.is_done and (self._waits_for is None or self._waits_for.is_done):
            try:
                self._waits_for = self._coroutine.send(None)
            except StopIteration as stop:
                self.is_done, self.result = True, stop.value
        return self.is_done

    def cancel(self) -> None:
        try:
            self._coroutine.throw(asyncio.CancelledError())
        except asyncio.CancelledError:
            self.is_done = True


def finish(loop: FakeLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what the coroutine returns; it must not have to wait."""
    task = FakeTask(loop, coroutine)
    assert task.advance(), "it waits"
    return cast(T, task.result)
