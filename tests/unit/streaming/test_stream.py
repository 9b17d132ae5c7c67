from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from leptond.errors import BackendFault, InvariantViolation
from leptond.streaming import LoopBridge, ResponseSink, ResponseStream
from leptond.types import StreamPacing
from tests.unit.streaming.fake_loop import FakeLoop, FakeTask, finish

Stream = ResponseStream[int, str]


# Functions, because a type checker takes a property for as constant as an attribute.
def has_room(sink: ResponseSink[Any, Any]) -> bool:
    return sink.has_room


def is_cancelled(sink: ResponseSink[Any, Any]) -> bool:
    return sink.is_cancelled


def is_finished(stream: Stream) -> bool:
    return stream.is_finished


def with_writer_since(stream: Stream) -> float | None:
    return stream.with_writer_since


class Setting:
    """A bridge on a fake loop, and what a test does with it."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.bridge = LoopBridge(self.loop.as_asyncio, self.loop.clock)

    def open(
        self,
        interval_tokens: int = 1,
        interval_s: float = 0.0,
        *,
        max_buffered: int = 1024,
        on_cancel: Callable[[], None] | None = None,
    ) -> Stream:
        return self.bridge.open_stream(
            StreamPacing(interval_tokens, interval_s),
            max_buffered=max_buffered,
            on_cancel=on_cancel,
        )

    def next(self, stream: Stream) -> list[int]:
        return finish(self.loop, stream.next())

    def reader(self, stream: Stream) -> FakeTask:
        task = FakeTask(self.loop, stream.next())
        assert not task.advance()
        return task

    def push(self, stream: Stream, *items: int) -> None:
        for item in items:
            stream.push(item)
        self.bridge.flush()


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_a_waiting_reader_gets_an_item_at_the_flush(setting: Setting):
    stream = setting.open()
    task = setting.reader(stream)
    stream.push(1)
    assert not task.advance()
    setting.bridge.flush()
    assert task.advance()
    assert task.result == [1]


def test_items_that_wait_leave_together_when_the_reader_comes_back(setting: Setting):
    stream = setting.open()
    setting.push(stream, 1, 2)
    assert setting.next(stream) == [1, 2]
    setting.push(stream, 3)
    setting.push(stream, 4)
    assert setting.next(stream) == [3, 4]


def test_the_end_comes_after_the_last_item(setting: Setting):
    stream = setting.open()
    setting.push(stream, 1)
    stream.finish("done")
    setting.bridge.flush()
    assert setting.next(stream) == [1]
    assert setting.next(stream) == []
    assert setting.next(stream) == []
    assert stream.final == "done"


def test_a_stream_is_finished_once_its_last_item_was_taken(setting: Setting):
    stream, failed = setting.open(), setting.open()
    setting.push(stream, 1)
    stream.finish("done")
    assert not is_finished(stream)
    setting.next(stream)
    assert is_finished(stream)
    assert stream.final == "done"
    failed.fail(BackendFault("broken"))
    assert not is_finished(failed)


def test_a_failed_stream_raises_after_the_last_item_and_again(setting: Setting):
    stream = setting.open()
    setting.push(stream, 1)
    stream.fail(BackendFault("broken"))
    assert setting.next(stream) == [1]
    for _ in range(2):
        with pytest.raises(BackendFault, match="broken"):
            setting.next(stream)


def test_a_waiting_reader_is_woken_by_the_end(setting: Setting):
    stream = setting.open()
    task = setting.reader(stream)
    stream.finish("done")
    setting.bridge.flush()
    assert task.advance()
    assert task.result == []


@pytest.mark.parametrize("end", [lambda s: s.finish("x"), lambda s: s.fail(BackendFault("x"))])
def test_a_stream_ends_once(setting: Setting, end: Callable[[Stream], None]):
    stream = setting.open()
    stream.finish("done")
    with pytest.raises(InvariantViolation, match="ended twice"):
        end(stream)


def test_a_stream_has_no_final_value_before_its_end(setting: Setting):
    with pytest.raises(InvariantViolation, match="no final value"):
        _ = setting.open().final


def test_a_stream_has_one_reader(setting: Setting):
    stream = setting.open()
    first = setting.reader(stream)
    with pytest.raises(InvariantViolation, match="two readers"):
        setting.next(stream)
    assert not first.is_done


def test_a_reader_that_was_cancelled_while_waiting_may_come_back(setting: Setting):
    stream = setting.open()
    task = setting.reader(stream)
    task.cancel()
    setting.push(stream, 1)
    assert setting.next(stream) == [1]


def test_one_wakeup_serves_every_stream_of_a_step(setting: Setting):
    streams = [setting.open() for _ in range(16)]
    tasks = [setting.reader(stream) for stream in streams]
    for step in range(3):
        for stream in streams:
            stream.push(step)
    setting.bridge.flush()
    setting.bridge.flush()
    assert setting.loop.num_wakeups == 1
    assert all(task.advance() for task in tasks)
    setting.bridge.flush()
    assert setting.loop.num_wakeups == 1


# ---------------------------------------------------------------------------------------- pacing
def test_the_first_item_leaves_at_once_whatever_the_pacing(setting: Setting):
    stream = setting.open(interval_tokens=4, interval_s=10.0)
    setting.push(stream, 1)
    assert setting.next(stream) == [1]


def test_items_are_gathered_by_number(setting: Setting):
    stream = setting.open(interval_tokens=3)
    setting.push(stream, 0)
    setting.next(stream)
    task = setting.reader(stream)
    setting.push(stream, 1)
    setting.push(stream, 2)
    assert not task.advance()
    setting.push(stream, 3)
    assert task.advance()
    assert task.result == [1, 2, 3]


def test_the_loop_is_not_woken_for_items_that_have_to_wait(setting: Setting):
    stream = setting.open(interval_tokens=4)
    setting.push(stream, 1)
    assert setting.next(stream) == [1]
    task = setting.reader(stream)
    before = setting.loop.num_wakeups
    for item in (2, 3, 4):
        setting.push(stream, item)
    assert setting.loop.num_wakeups == before
    setting.push(stream, 5)
    assert setting.loop.num_wakeups == before + 1
    assert task.advance()
    assert task.result == [2, 3, 4, 5]


def test_the_loop_is_woken_once_to_start_the_timer(setting: Setting):
    stream = setting.open(interval_tokens=0, interval_s=0.5)
    setting.push(stream, 1)
    assert setting.next(stream) == [1]
    task = setting.reader(stream)
    before = setting.loop.num_wakeups
    for item in (2, 3, 4):
        setting.push(stream, item)
    assert not task.advance()
    assert setting.loop.num_wakeups == before + 1


def test_what_is_gathered_leaves_when_the_answer_ends(setting: Setting):
    stream = setting.open(interval_tokens=3)
    setting.push(stream, 0)
    setting.next(stream)
    setting.push(stream, 1)
    stream.finish("done")
    assert setting.next(stream) == [1]


@pytest.mark.parametrize("interval_tokens", [0, 100])
def test_items_are_gathered_by_time(setting: Setting, interval_tokens: int):
    stream = setting.open(interval_tokens=interval_tokens, interval_s=2.0)
    setting.push(stream, 0)
    setting.next(stream)
    task = setting.reader(stream)
    setting.loop.turn(1.0)
    setting.push(stream, 1)
    assert not task.advance()
    setting.push(stream, 2)
    assert not task.advance()
    assert setting.loop.num_timers == 1
    setting.loop.turn(0.9)
    assert not task.advance()
    setting.loop.turn(0.1)
    assert task.advance()
    assert task.result == [1, 2]


def test_an_item_that_comes_after_the_interval_leaves_at_once(setting: Setting):
    stream = setting.open(interval_tokens=100, interval_s=2.0)
    setting.push(stream, 0)
    setting.next(stream)
    task = setting.reader(stream)
    setting.loop.turn(5.0)
    assert not task.advance()
    setting.push(stream, 1)
    assert task.advance()
    assert setting.loop.num_timers == 0


def test_a_number_reached_before_the_interval_stops_the_timer(setting: Setting):
    stream = setting.open(interval_tokens=2, interval_s=2.0)
    setting.push(stream, 0)
    setting.next(stream)
    task = setting.reader(stream)
    setting.push(stream, 1)
    assert not task.advance()
    setting.push(stream, 2)
    assert task.advance()
    assert setting.loop.num_timers == 0


def test_a_timer_that_goes_off_for_a_reader_who_left_does_nothing(setting: Setting):
    stream = setting.open(interval_tokens=0, interval_s=2.0)
    setting.push(stream, 0)
    setting.next(stream)
    task = setting.reader(stream)
    setting.push(stream, 1)
    task.advance()
    task.cancel()
    setting.loop.turn(3.0)
    assert setting.next(stream) == [1]


@pytest.mark.parametrize("interval_s", [0.0, 60.0])
def test_a_full_buffer_is_due_whatever_the_pacing(setting: Setting, interval_s: float):
    stream = setting.open(interval_tokens=100, interval_s=interval_s, max_buffered=3)
    setting.push(stream, 0)
    setting.next(stream)
    task = setting.reader(stream)
    setting.push(stream, 1, 2)
    assert not task.advance()
    setting.push(stream, 3)
    assert task.advance()
    assert task.result == [1, 2, 3]


def test_no_pacing_at_all_sends_each_item(setting: Setting):
    stream = setting.open(interval_tokens=0)
    for item in range(3):
        setting.push(stream, item)
        assert setting.next(stream) == [item]


# --------------------------------------------------------------------------- cancel and slowness
def test_cancel_tells_the_worker_once(setting: Setting):
    told: list[str] = []
    stream = setting.open(on_cancel=lambda: told.append("callback"))
    stream.attach(lambda: told.append("worker"))
    assert not is_cancelled(stream)
    stream.cancel()
    stream.cancel()
    assert is_cancelled(stream)
    assert told == ["callback", "worker"]


def test_cancel_without_a_worker_is_remembered(setting: Setting):
    stream = setting.open()
    stream.cancel()
    assert is_cancelled(stream)


def test_after_cancel_only_the_end_is_due(setting: Setting):
    stream = setting.open(interval_tokens=2, interval_s=1.0)
    setting.push(stream, 1)
    setting.next(stream)
    setting.push(stream, 2)
    stream.cancel()
    setting.push(stream, 3)
    task = setting.reader(stream)
    setting.loop.turn(5.0)
    assert not task.advance()
    setting.push(stream, 4)
    stream.finish("cancelled")
    setting.bridge.flush()
    assert task.advance()
    assert task.result == []
    assert stream.final == "cancelled"


def test_a_stream_that_has_ended_is_not_cancelled(setting: Setting):
    told: list[None] = []
    stream = setting.open(on_cancel=lambda: told.append(None))
    setting.push(stream, 1)
    stream.finish("done")
    stream.cancel()
    assert not told
    assert setting.next(stream) == [1]


def test_a_reader_far_behind_has_no_room_until_it_reads(setting: Setting):
    woken: list[None] = []
    stream = setting.open(max_buffered=2)
    stream.attach(lambda: woken.append(None))
    setting.push(stream, 1)
    assert has_room(stream)
    setting.push(stream, 2)
    assert not has_room(stream)
    assert not woken
    assert setting.next(stream) == [1, 2]
    assert len(woken) == 1
    assert has_room(stream)
    setting.push(stream, 3)
    setting.next(stream)
    assert len(woken) == 1


def test_room_matters_to_nobody_before_a_worker_is_attached(setting: Setting):
    stream = setting.open(max_buffered=1)
    setting.push(stream, 1)
    assert not has_room(stream)
    assert setting.next(stream) == [1]


def test_the_writer_is_timed_from_taking_items_until_it_comes_back(setting: Setting):
    stream = setting.open()
    assert with_writer_since(stream) is None
    setting.push(stream, 1)
    setting.loop.turn(3.0)
    setting.next(stream)
    taken_at = setting.loop.now
    setting.loop.turn(7.0)
    assert with_writer_since(stream) == taken_at
    setting.reader(stream)
    assert with_writer_since(stream) is None


def test_what_is_put_for_a_closed_loop_is_dropped(setting: Setting):
    stream = setting.open()
    setting.loop.is_loop_closed = True
    setting.push(stream, 1)
    stream.finish("done")
    setting.bridge.flush()
    assert setting.loop.num_wakeups == 0


def test_another_failure_of_the_loop_is_not_hidden(setting: Setting, monkeypatch):
    def fail(_: Callable[[], None]) -> None:
        raise RuntimeError("something else")

    stream = setting.open()
    monkeypatch.setattr(setting.loop, "call_soon_threadsafe", fail)
    with pytest.raises(RuntimeError, match="something else"):
        setting.push(stream, 1)
