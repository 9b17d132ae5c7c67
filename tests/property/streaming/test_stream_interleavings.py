"""A worker and a reader, cut anywhere between two bytecodes: nothing is lost, nobody sleeps on."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from leptond.streaming import LoopBridge, QueueSink, ResponseStream
from leptond.types import StreamPacing
from tests.property.streaming.interleaving import Interleaving
from tests.unit.streaming.fake_loop import FakeLoop, FakeTask

PACKAGE = "leptond/streaming"
cuts = st.lists(st.integers(0, 120), max_size=12)


class Worker:
    """Pushes numbers, a flush after each step, and waits while a reader has no room."""

    def __init__(self, interleaving: Interleaving, bridge: LoopBridge) -> None:
        self._interleaving = interleaving
        self._bridge = bridge
        self._is_woken = False

    def wake(self) -> None:
        self._is_woken = True
        self._interleaving.moved()

    def answer(self, stream: ResponseStream[int, str], num_items: int) -> Callable[[], None]:
        stream.attach(self.wake)

        def run() -> None:
            for item in range(num_items):
                self._is_woken = False
                while not stream.has_room:
                    while not self._is_woken:
                        self._interleaving.wait()
                    self._is_woken = False
                stream.push(item)
                self._bridge.flush()
                self._interleaving.moved()
            stream.finish("done")
            self._bridge.flush()

        return run


def read_all(
    interleaving: Interleaving,
    loop: FakeLoop,
    streams: list[ResponseStream[int, str]],
    received: list[list[int]],
) -> Callable[[], None]:
    """The loop's thread: one reader per stream, until all streams have ended."""

    async def read(stream: ResponseStream[int, str], into: list[int]) -> None:
        while items := await stream.next():
            into.extend(items)

    def run() -> None:
        tasks = [FakeTask(loop, read(s, into)) for s, into in zip(streams, received, strict=True)]
        while any(not task.is_done for task in tasks):
            for task in tasks:
                task.advance()
            interleaving.wait()

    return run


@given(cuts, st.integers(1, 4), st.integers(1, 3))
def test_every_item_arrives_in_order(
    cut_points: list[int], interval_tokens: int, max_buffered: int
):
    loop = FakeLoop()
    bridge = LoopBridge(loop.as_asyncio, loop.clock)
    interleaving = Interleaving(PACKAGE, cut_points)
    stream: ResponseStream[int, str] = bridge.open_stream(
        StreamPacing(interval_tokens), max_buffered=max_buffered
    )
    received: list[int] = []
    interleaving.run(
        Worker(interleaving, bridge).answer(stream, 5),
        read_all(interleaving, loop, [stream], [received]),
    )
    assert received == list(range(5))
    assert stream.final == "done"


@given(cuts)
def test_two_workers_share_a_bridge(cut_points: list[int]):
    loop = FakeLoop()
    bridge = LoopBridge(loop.as_asyncio, loop.clock)
    interleaving = Interleaving(PACKAGE, cut_points)
    streams = [bridge.open_stream(StreamPacing()) for _ in range(2)]
    received: list[list[int]] = [[], []]
    interleaving.run(
        *(Worker(interleaving, bridge).answer(stream, 3) for stream in streams),
        read_all(interleaving, loop, streams, received),
    )
    assert received == [[0, 1, 2], [0, 1, 2]]


@given(cuts, st.integers(1, 3))
def test_a_cancel_always_reaches_the_worker(cut_points: list[int], max_buffered: int):
    loop = FakeLoop()
    bridge = LoopBridge(loop.as_asyncio, loop.clock)
    interleaving = Interleaving(PACKAGE, cut_points)
    stream: ResponseStream[int, str] = bridge.open_stream(StreamPacing(), max_buffered=max_buffered)
    woken: list[None] = []

    def wake() -> None:
        woken.append(None)
        interleaving.moved()

    def work() -> None:
        stream.attach(wake)
        item = 0
        while not stream.is_cancelled:
            num_woken = len(woken)
            if stream.has_room:
                stream.push(item)
                item += 1
                bridge.flush()
                interleaving.moved()
            else:
                while len(woken) == num_woken and not stream.is_cancelled:
                    interleaving.wait()
        stream.finish("cancelled")
        bridge.flush()
        interleaving.moved()

    def read() -> None:
        first = FakeTask(loop, stream.next())
        while not first.advance():
            interleaving.wait()
        stream.cancel()
        last = FakeTask(loop, stream.next())
        while not last.advance():
            interleaving.wait()
        assert last.result == []

    interleaving.run(work, read)
    assert stream.final == "cancelled"


@given(cuts, st.integers(1, 3))
def test_a_queue_sink_wakes_its_worker(cut_points: list[int], max_buffered: int):
    interleaving = Interleaving(PACKAGE, cut_points)
    sink: QueueSink[int, str] = QueueSink(max_buffered)
    woken: list[None] = []
    read: list[int] = []

    def wake() -> None:
        woken.append(None)
        interleaving.moved()

    def work() -> None:
        sink.attach(wake)
        for item in range(6):
            num_woken = len(woken)
            while not sink.has_room:
                while len(woken) == num_woken:
                    interleaving.wait()
                num_woken = len(woken)
            sink.push(item)
            interleaving.moved()
        sink.finish("done")

    def take() -> None:
        items = iter(sink)
        while len(read) < 6:
            # A real reader blocks in `get`; here it may only look when there is something.
            if sink._items.qsize():
                read.append(next(items))
            else:
                interleaving.wait()

    interleaving.run(work, take)
    assert read == list(range(6))
