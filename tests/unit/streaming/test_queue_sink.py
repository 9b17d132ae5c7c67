from __future__ import annotations

from typing import Any

import pytest

from leptond.errors import BackendFault, InvariantViolation
from leptond.streaming import QueueSink, ResponseSink


# Functions, because a type checker takes a property for as constant as an attribute.
def has_room(sink: ResponseSink[Any, Any]) -> bool:
    return sink.has_room


def is_cancelled(sink: ResponseSink[Any, Any]) -> bool:
    return sink.is_cancelled


def test_iteration_gives_every_item_and_then_the_final_value():
    sink: QueueSink[int, str] = QueueSink()
    for item in range(3):
        sink.push(item)
    sink.finish("done")
    assert list(sink) == [0, 1, 2]
    assert list(sink) == []
    assert sink.final == "done"


def test_a_failed_answer_raises_after_its_items():
    sink: QueueSink[int, str] = QueueSink()
    sink.push(1)
    sink.fail(BackendFault("broken"))
    items = iter(sink)
    assert next(items) == 1
    with pytest.raises(BackendFault):
        next(items)


def test_there_is_no_final_value_before_the_end_was_read():
    sink: QueueSink[int, str] = QueueSink()
    sink.finish("done")
    with pytest.raises(InvariantViolation):
        _ = sink.final


def test_a_sink_ends_once():
    sink: QueueSink[int, str] = QueueSink()
    sink.finish("done")
    with pytest.raises(InvariantViolation):
        sink.fail(BackendFault("late"))


def test_cancel_wakes_the_worker_once():
    woken: list[None] = []
    sink: QueueSink[int, str] = QueueSink()
    sink.attach(lambda: woken.append(None))
    sink.cancel()
    sink.cancel()
    assert is_cancelled(sink)
    assert len(woken) == 1


def test_cancel_without_a_worker_is_remembered():
    sink: QueueSink[int, str] = QueueSink()
    sink.cancel()
    assert is_cancelled(sink)


def test_without_a_bound_there_is_always_room():
    sink: QueueSink[int, str] = QueueSink()
    for item in range(10_000):
        sink.push(item)
    assert has_room(sink)


def test_a_worker_told_to_wait_is_woken_when_there_is_room():
    woken: list[None] = []
    sink: QueueSink[int, str] = QueueSink(max_buffered=2)
    sink.attach(lambda: woken.append(None))
    for item in range(3):
        sink.push(item)
    assert not has_room(sink)
    items = iter(sink)
    next(items)
    assert not woken
    next(items)
    assert len(woken) == 1
    assert has_room(sink)
    next_item = next(items)
    assert next_item == 2
    assert len(woken) == 1
