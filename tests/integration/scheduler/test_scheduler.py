from __future__ import annotations

import threading
import time

import pytest

from leptond.backend import SessionOptions
from leptond.backend.fake import FakeModel, FakeOptions, FakeStepSession, expected_tokens
from leptond.errors import (
    BackendCrashed,
    BackendFault,
    DeadlineExpired,
    InvariantViolation,
    LeptondError,
    QueueFull,
    ShuttingDown,
    UnsupportedCapability,
)
from leptond.scheduler import ComputeBudget, SchedulerOptions, StepScheduler
from leptond.types import FinishReason
from tests.integration.scheduler.conftest import (
    PATIENCE_S,
    Sink,
    StartScheduler,
    failure,
    request,
    submit,
    token_ids,
)

LONG = 1_000
SLOW = FakeOptions(slots=2, context=2048, mean_sentences=0, tokens_per_s=500)


class Gate:
    """A sleep for a fake model: its steps wait until the test lets them through."""

    def __init__(self) -> None:
        self.is_stuck = threading.Event()
        self._may_go = threading.Event()

    def sleep(self, _: float) -> None:
        self.is_stuck.set()
        assert self._may_go.wait(PATIENCE_S)

    def open(self) -> None:
        self._may_go.set()


@pytest.fixture
def gate() -> Gate:
    return Gate()


def truth(max_tokens: int, prompt_ids: tuple[int, ...]) -> list[int]:
    return expected_tokens(prompt_ids, max_tokens, FakeOptions(mean_sentences=0))


def test_many_requests_at_once_each_get_their_own_answer(start: StartScheduler):
    scheduler = start()
    requests = [request(3 + i % 40, max_tokens=1 + i % 30) for i in range(100)]
    sinks = [submit(scheduler, one) for one in requests]
    for one, sink in zip(requests, sinks, strict=True):
        assert token_ids(sink) == truth(one.stop.max_tokens, one.prompt_ids)
        assert sink.final.finish_reason is FinishReason.LENGTH


def test_an_idle_worker_wakes_for_each_request(start: StartScheduler):
    scheduler = start()
    for _ in range(20):
        one = request()
        assert token_ids(submit(scheduler, one)) == truth(4, one.prompt_ids)
        assert scheduler.wait_until_idle(PATIENCE_S)


def test_a_cancelled_stream_ends_and_its_mate_does_not_notice(start: StartScheduler):
    scheduler = start(SLOW)
    mate_request = request(max_tokens=60)
    sink, mate = submit(scheduler, request(max_tokens=LONG)), submit(scheduler, mate_request)
    items = iter(sink)
    next(items)
    sink.cancel()
    for _ in items:
        pass
    assert sink.final.finish_reason is FinishReason.CANCELLED
    assert sink.final.usage.completion_tokens < LONG
    assert token_ids(mate) == truth(60, mate_request.prompt_ids)


def test_a_deadline_ends_a_running_stream(start: StartScheduler):
    scheduler = start(SLOW)
    sink = submit(scheduler, request(max_tokens=LONG, deadline=time.monotonic() + 0.2))
    assert isinstance(failure(sink), DeadlineExpired)


def test_a_deadline_ends_a_wait_although_nothing_else_happens(start: StartScheduler):
    scheduler = start(FakeOptions(slots=1, context=2048, mean_sentences=0))
    slow = submit(scheduler, request(max_tokens=LONG), max_buffered=1)
    next(iter(slow))
    # The only slot belongs to a reader that does not read: the worker sleeps.
    waiting = submit(scheduler, request(deadline=time.monotonic() + 0.2))
    assert isinstance(failure(waiting), DeadlineExpired)


def test_a_slow_reader_holds_up_nobody_and_gets_its_whole_answer(start: StartScheduler):
    scheduler = start()
    slow_request, mate_request = request(max_tokens=200), request(max_tokens=200)
    slow = submit(scheduler, slow_request, max_buffered=3)
    mate = submit(scheduler, mate_request)
    assert token_ids(mate) == truth(200, mate_request.prompt_ids)
    assert scheduler.load().num_running == 1
    assert token_ids(slow) == truth(200, slow_request.prompt_ids)


def test_a_full_queue_refuses_and_takes_again(start: StartScheduler, gate: Gate):
    scheduler = start(SLOW, SchedulerOptions(max_queued=2), model=FakeModel(SLOW, gate.sleep))
    sinks = [submit(scheduler, request()) for _ in range(4)]
    assert gate.is_stuck.wait(PATIENCE_S)
    with pytest.raises(QueueFull) as refusal:
        submit(scheduler, request())
    assert refusal.value.retry_after_s
    gate.open()
    for sink in sinks:
        token_ids(sink)
    assert scheduler.wait_until_idle(PATIENCE_S)
    token_ids(submit(scheduler, request()))


def test_load_says_what_waits_and_runs(start: StartScheduler, gate: Gate):
    scheduler = start(SLOW, model=FakeModel(SLOW, gate.sleep))
    sinks = [submit(scheduler, request(7)) for _ in range(3)]
    assert gate.is_stuck.wait(PATIENCE_S)
    load = scheduler.load()
    assert load.num_queued + load.num_running == 3
    assert load.max_running == 2
    assert load.max_queued == SchedulerOptions().max_queued
    assert load.max_kv_tokens == 2 * 2048
    gate.open()
    for sink in sinks:
        token_ids(sink)
    assert scheduler.wait_until_idle(PATIENCE_S)
    load = scheduler.load()
    assert (load.num_queued, load.num_running, load.num_queued_tokens) == (0, 0, 0)
    assert load.tokens_per_s > 0


def test_a_scheduler_that_was_not_started_has_no_load():
    scheduler = StepScheduler(
        "fake",
        FakeModel(SLOW),
        SessionOptions(2, 64),
        None,
        SchedulerOptions(),
        compute=ComputeBudget(1),
        flush=lambda: None,
    )
    assert scheduler.load().tokens_per_s == scheduler.load().kv_tokens == 0
    assert scheduler.stop(0)


def test_wake_is_harmless(start: StartScheduler):
    scheduler = start()
    scheduler.wake()
    token_ids(submit(scheduler, request()))


# ------------------------------------------------------------------------------------------ ends
def test_a_drain_finishes_what_is_inside_and_takes_nothing_new(start: StartScheduler):
    scheduler = start(SLOW)
    requests = [request(max_tokens=30) for _ in range(4)]
    sinks = [submit(scheduler, one) for one in requests]
    scheduler.drain()
    with pytest.raises(ShuttingDown):
        submit(scheduler, request())
    for one, sink in zip(requests, sinks, strict=True):
        assert token_ids(sink) == truth(30, one.prompt_ids)
    assert scheduler.wait_until_idle(PATIENCE_S)


def test_stop_fails_what_is_left(start: StartScheduler):
    scheduler = start(SLOW)
    sinks = [submit(scheduler, request(max_tokens=LONG)) for _ in range(4)]
    next(iter(sinks[0]))
    assert scheduler.stop(PATIENCE_S)
    assert all(isinstance(failure(sink), ShuttingDown) for sink in sinks)
    assert scheduler.failure is None
    assert scheduler.stop(PATIENCE_S)
    with pytest.raises(ShuttingDown):
        submit(scheduler, request())


def test_stop_says_when_the_engine_is_stuck_and_shows_where(
    start: StartScheduler, gate: Gate, caplog
):
    scheduler = start(SLOW, model=FakeModel(SLOW, gate.sleep))
    sink = submit(scheduler, request())
    assert gate.is_stuck.wait(PATIENCE_S)
    assert not scheduler.stop(0.01)
    assert "worker stuck" in caplog.text
    assert "_may_go.wait" in caplog.text
    gate.open()
    assert isinstance(failure(sink), ShuttingDown)


def test_a_session_that_cannot_be_opened_fails_the_start():
    model = FakeModel(FakeOptions(slots=2, context=64))
    scheduler = StepScheduler(
        "fake",
        model,
        SessionOptions(9, 64),
        None,
        SchedulerOptions(),
        compute=ComputeBudget(1),
        flush=lambda: None,
    )
    with pytest.raises(LeptondError, match="num_slots is 9"):
        scheduler.start()
    with pytest.raises(BackendCrashed):
        submit(scheduler, request())
    with pytest.raises(InvariantViolation, match="started twice"):
        scheduler.start()


def test_a_session_of_the_wrong_kind_fails_the_start(monkeypatch):
    class BatchOnly:
        is_shut_down = False

        def shutdown(self) -> None:
            self.is_shut_down = True

    model, session = FakeModel(SLOW), BatchOnly()
    monkeypatch.setattr(model, "open_session", lambda _: session)
    scheduler = StepScheduler(
        "fake",
        model,
        SessionOptions(2, 64),
        None,
        SchedulerOptions(),
        compute=ComputeBudget(1),
        flush=lambda: None,
    )
    with pytest.raises(UnsupportedCapability):
        scheduler.start()
    assert session.is_shut_down


# ---------------------------------------------------------------------------------------- faults
def test_a_fault_ends_who_brought_it_about_and_nobody_else(start: StartScheduler):
    has_begun, may_go_on = threading.Event(), threading.Event()

    def sleep(_: float) -> None:
        if has_begun.is_set():
            assert may_go_on.wait(PATIENCE_S)

    fake = FakeOptions(slots=4, context=2048, mean_sentences=0, tokens_per_s=500, poison_token=251)
    scheduler = start(fake, model=FakeModel(fake, sleep))
    begun_request = request(max_tokens=200)
    begun = submit(scheduler, begun_request)
    next(iter(begun))
    has_begun.set()
    good_request = request(max_tokens=20)
    good, poison = submit(scheduler, good_request), submit(scheduler, request([251, 1]))
    may_go_on.set()
    assert isinstance(failure(poison), BackendFault)
    assert token_ids(good) == truth(20, good_request.prompt_ids)
    assert token_ids(begun) == truth(200, begun_request.prompt_ids)[1:]  # the first was read above
    assert scheduler.failure is None


def test_a_crash_is_told_to_everyone_and_can_be_seen(start: StartScheduler, gate: Gate):
    fake = FakeOptions(slots=2, context=2048, mean_sentences=0, tokens_per_s=500, crash_at=2)
    told: list[LeptondError] = []
    scheduler = start(fake, model=FakeModel(fake, gate.sleep), on_failure=told.append)
    sinks = [submit(scheduler, request()) for _ in range(5)]
    gate.open()
    errors = [failure(sink) for sink in sinks]
    assert all(isinstance(error, BackendCrashed) for error in errors)
    assert len(set(map(id, errors))) == 5
    assert scheduler.stop(PATIENCE_S)
    assert told == [scheduler.failure]
    assert isinstance(scheduler.failure, BackendCrashed)
    with pytest.raises(BackendCrashed, match="is dead"):
        submit(scheduler, request())


def test_a_bug_in_the_worker_leaves_nobody_waiting(start: StartScheduler, monkeypatch, caplog):
    def break_down(self: FakeStepSession, _: object) -> None:
        raise ZeroDivisionError("a bug of the plug-in")

    monkeypatch.setattr(FakeStepSession, "step", break_down)
    scheduler = start()
    try:
        sinks: list[Sink] = [submit(scheduler, request()) for _ in range(3)]
    except BackendCrashed:
        pytest.fail("it died before anything was asked of it")
    errors = [failure(sink) for sink in sinks]
    assert all(isinstance(error, InvariantViolation) for error in errors)
    assert all(isinstance(error.__cause__, ZeroDivisionError) for error in errors)
    assert scheduler.stop(PATIENCE_S)
    assert "worker died" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(BackendCrashed):
        submit(scheduler, request())


def test_a_session_that_does_not_shut_down_is_logged(start: StartScheduler, monkeypatch, caplog):
    shut_down = FakeStepSession.shutdown

    def break_down(self: FakeStepSession) -> None:
        shut_down(self)
        raise ZeroDivisionError("a bug of the plug-in")

    monkeypatch.setattr(FakeStepSession, "shutdown", break_down)
    scheduler = start()
    assert scheduler.stop(PATIENCE_S)
    assert "does not shut down" in caplog.text


# --------------------------------------------------------------------------------- shared cores
def test_a_core_that_is_free_goes_to_who_is_due_first_though_another_waits_for_two():
    budget = ComputeBudget(2)
    is_waiting, is_done = threading.Event(), threading.Event()

    def take_both() -> None:
        is_waiting.set()
        with budget.lease("patient", -1):
            is_done.set()

    with budget.lease("first", num_cores=1):
        patient = threading.Thread(target=take_both)
        patient.start()
        assert is_waiting.wait(PATIENCE_S)
        with budget.lease("urgent", 1, num_cores=1):
            budget.check_integrity()
            assert not is_done.is_set()
    patient.join(PATIENCE_S)
    assert is_done.is_set()


def test_two_models_on_one_budget_never_compute_at_once(start: StartScheduler):
    lock = threading.Lock()
    num_inside = 0
    most_inside = 0

    def compute(seconds: float) -> None:
        nonlocal num_inside, most_inside
        with lock:
            num_inside += 1
            most_inside = max(most_inside, num_inside)
        time.sleep(seconds)
        with lock:
            num_inside -= 1

    budget = ComputeBudget(2)
    schedulers = [
        start(SLOW, model=FakeModel(SLOW, compute), compute=budget, name=f"m{i}") for i in range(3)
    ]
    sinks = [submit(scheduler, request(max_tokens=30)) for scheduler in schedulers]
    for sink in sinks:
        assert len(token_ids(sink)) == 30
    assert most_inside == 1


def test_a_thousand_requests_opened_and_dropped_leave_nothing_behind(start: StartScheduler):
    scheduler = start(options=SchedulerOptions(max_queued=2_000))
    sinks = [submit(scheduler, request(8, max_tokens=LONG)) for _ in range(1_000)]
    for sink in sinks:
        sink.cancel()
    for sink in sinks:
        token_ids(sink)
        assert sink.final.finish_reason is FinishReason.CANCELLED
    assert scheduler.wait_until_idle(PATIENCE_S)
    load = scheduler.load()
    assert (load.num_queued, load.num_running, load.kv_tokens) == (0, 0, 0)
    one = request()
    assert token_ids(submit(scheduler, one)) == truth(4, one.prompt_ids)
