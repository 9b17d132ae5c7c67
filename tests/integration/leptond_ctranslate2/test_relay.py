"""Tokens of a call on another thread reach the thread of `run`, whatever goes wrong."""

from __future__ import annotations

import threading

import pytest

from leptond_ctranslate2.relay import TokenRelay


@pytest.fixture
def relay():
    relay = TokenRelay()
    yield relay
    relay.shutdown()
    relay.shutdown()


def on_a_thread_of_its_own(work):
    """Run `work` as the engine does: its callback comes from another thread than its caller's."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def counting(limit, verdicts):
    """A call of so many steps, and what its callback said to each."""

    def call(callback):
        on_a_thread_of_its_own(lambda: verdicts.extend(callback(step) for step in range(limit)))
        return "done"

    return call


def test_each_step_is_handled_on_the_callers_thread_and_answered(relay):
    verdicts: list[bool] = []
    handled = []

    def handle(step):
        handled.append((step, threading.current_thread()))
        return step == 2

    assert relay.run(counting(4, verdicts), handle) == "done"
    assert handled == [(step, threading.current_thread()) for step in range(4)]
    assert verdicts == [False, False, True, False]


def test_a_call_without_steps_comes_back(relay):
    assert relay.run(lambda callback: "done", lambda step: True) == "done"


def test_the_engine_waits_for_the_verdict(relay):
    events = []

    def call(callback):
        def work():
            for step in range(3):
                events.append(f"made {step}")
                callback(step)

        on_a_thread_of_its_own(work)

    def handle(step):
        events.append(f"handled {step}")
        return False

    relay.run(call, handle)
    assert events == [f"{what} {step}" for step in range(3) for what in ("made", "handled")]


def test_I1_I2_an_exception_ends_every_row_and_is_raised_when_the_call_is_over(relay):
    verdicts: list[bool] = []

    def handle(step):
        if step == 1:
            raise ValueError("the reader broke")
        return False

    with pytest.raises(ValueError, match="the reader broke"):
        relay.run(counting(4, verdicts), handle)
    assert verdicts == [False, True, True, True]
    assert relay.run(counting(1, verdicts), lambda step: True) == "done"


def test_what_the_call_raised_is_raised(relay):
    def call(callback):
        on_a_thread_of_its_own(lambda: callback(0))
        raise RuntimeError("the engine broke")

    with pytest.raises(RuntimeError, match="the engine broke"):
        relay.run(call, lambda step: False)
