from __future__ import annotations

import math

import numpy as np
import pytest

from leptond.backend import StepResult, StepRow
from leptond.backend.fake import END_OF_TURN, FakeOptions, expected_tokens
from leptond.errors import (
    BackendCrashed,
    BackendFault,
    DeadlineExpired,
    InvalidRequest,
    InvariantViolation,
    MemoryBudgetExceeded,
    ShuttingDown,
)
from leptond.scheduler import SchedulerOptions
from leptond.scheduler.answer import AnswerWriter
from leptond.text import Tokenizer
from leptond.types import (
    FinishReason,
    PhaseName,
    SamplingParams,
    StopConditions,
    TokenChunk,
)
from tests.unit.scheduler.rig import RecordingSink, Rig

SLOTS = 4


def truth(rig: Rig, prompt_ids: tuple[int, ...], num_tokens: int) -> list[int]:
    return expected_tokens(prompt_ids, num_tokens, rig.fake)


def phases(sink: RecordingSink) -> list[PhaseName]:
    return [phase.name for phase in sink.summary.phases]


def test_an_answer_is_the_models_own_and_comes_token_by_token():
    rig = Rig()
    request = rig.request(5, max_tokens=6)
    sink = rig.submit(request)
    assert rig.run() == 6
    assert sink.token_ids == truth(rig, request.prompt_ids, 6)
    assert [len(chunk.token_ids) for chunk in sink.chunks] == [1] * 6
    assert sink.summary.finish_reason is FinishReason.LENGTH
    assert sink.summary.usage.prompt_tokens == 5
    assert sink.summary.usage.completion_tokens == 6
    assert rig.session.num_open == 0


def test_with_a_tokenizer_an_answer_has_text_and_may_be_sampled(tokenizer: Tokenizer):
    rig = Rig(tokenizer=tokenizer)
    request = rig.request(5, max_tokens=30)
    plain = rig.submit(request)
    sampled = rig.submit(
        rig.request(
            5,
            sampling=SamplingParams(temperature=0.8, top_p=0.9, seed=1),
            stop=StopConditions(30, stop_strings=("never",)),
            num_top_logprobs=1,
        )
    )
    rig.run()
    assert plain.text == bytes(truth(rig, request.prompt_ids, 30)).decode(errors="replace")
    assert sampled.text
    assert all(len(chunk.logprobs) == 1 for chunk in sampled.chunks)


def test_requests_join_and_leave_at_every_step():
    rig = Rig()
    first = rig.submit(rig.request(4, max_tokens=3))
    rig.advance()
    second = rig.submit(rig.request(4, max_tokens=3))
    rig.run()
    assert rig.session.lengths == [[4], [1, 4], [1, 1], [1]]
    assert first.summary.usage.completion_tokens == second.summary.usage.completion_tokens == 3


def test_every_answer_is_the_same_in_company_and_in_pieces():
    options = SchedulerOptions(step_token_budget=9, prefill_chunk_tokens=5, ride_along_tokens=3)
    rig = Rig(options=options)
    requests = [rig.request(7 + 3 * i, max_tokens=9 - i) for i in range(7)]
    sinks = [rig.submit(request) for request in requests]
    rig.run()
    for request, sink in zip(requests, sinks, strict=True):
        expected = truth(rig, request.prompt_ids, request.stop.max_tokens)
        assert sink.token_ids == expected


def test_a_stop_token_ends_the_answer():
    rig = Rig(FakeOptions(slots=4, mean_sentences=1))
    stop = StopConditions(200, stop_token_ids=frozenset({END_OF_TURN}))
    request = rig.request(5, stop=stop)
    sink = rig.submit(request)
    rig.run()
    assert sink.token_ids[-1] == END_OF_TURN
    assert sink.token_ids == expected_tokens(
        request.prompt_ids, 200, rig.fake, stop_token_ids=stop.stop_token_ids
    )
    assert sink.summary.finish_reason is FinishReason.STOP
    assert sink.summary.matched_stop == END_OF_TURN


def test_the_end_of_the_context_ends_the_answer():
    rig = Rig(FakeOptions(slots=2, context=20, mean_sentences=0))
    sink = rig.submit(rig.request(15, max_tokens=100))
    rig.run()
    assert len(sink.token_ids) == 5
    assert sink.summary.finish_reason is FinishReason.LENGTH


def test_sinks_are_flushed_once_per_engine_run():
    rig = Rig()
    for _ in range(SLOTS):
        rig.submit(rig.request(4, max_tokens=3))
    rig.run()
    assert len(rig.session.steps) == rig.num_flushes == 3
    assert not rig.advance()
    assert rig.num_flushes == 3


# ---------------------------------------------------------------------------------------- phases
def test_the_phases_follow_each_other_without_a_gap():
    rig = Rig(FakeOptions(slots=4, context=256, mean_sentences=0, tokens_per_s=10))
    sink = rig.submit(rig.request(4, max_tokens=5))
    start = rig.clock.now
    rig.clock.now += 3.0
    rig.run()
    assert phases(sink) == [PhaseName.QUEUE, PhaseName.PREFILL, PhaseName.DECODE]
    queue, prefill, decode = sink.summary.phases
    assert queue.start == start
    assert queue.duration_s == pytest.approx(3.0)
    assert prefill.start == queue.end
    assert prefill.duration_s == pytest.approx(0.1)
    assert decode.start == prefill.end
    assert decode.end == sink.times[-1] == rig.clock.now


def test_an_answer_of_one_token_has_a_decode_phase_too():
    rig = Rig()
    sink = rig.submit(rig.request(4, max_tokens=1))
    rig.run()
    assert phases(sink) == [PhaseName.QUEUE, PhaseName.PREFILL, PhaseName.DECODE]


def test_a_preemption_opens_queue_and_prefill_again():
    # Both fit when they start; then the second has to give way.
    rig = Rig(
        FakeOptions(slots=2, context=100, mean_sentences=0, tokens_per_s=10),
        SchedulerOptions(max_kv_tokens=100),
    )
    requests = [rig.request(30, max_tokens=50), rig.request(30, max_tokens=50)]
    sinks = [rig.submit(request) for request in requests]
    rig.run()
    assert phases(sinks[0]) == [PhaseName.QUEUE, PhaseName.PREFILL, PhaseName.DECODE]
    assert phases(sinks[1]) == [PhaseName.QUEUE, PhaseName.PREFILL, PhaseName.DECODE] * 2
    for earlier, later in zip(sinks[1].summary.phases, sinks[1].summary.phases[1:], strict=False):
        assert earlier.end == later.start
    for request, sink in zip(requests, sinks, strict=True):
        assert sink.token_ids == truth(rig, request.prompt_ids, 50)


def test_tenants_share_the_slots_by_the_tokens_they_were_served():
    rig = Rig(FakeOptions(slots=1, context=256, mean_sentences=0))
    sinks = {
        name: rig.submit(rig.request(num_tokens, max_tokens=1, tenant=name[0]))
        for name, num_tokens in [("a1", 40), ("a2", 40), ("a3", 40), ("b1", 20), ("b2", 20)]
    }
    order = []
    while rig.advance():
        order += [name for name, sink in sinks.items() if sink.is_ended and name not in order]
    # After a1 (40 tokens) b has two turns of 20; then both are level again.
    assert order == ["a1", "b1", "b2", "a2", "a3"]


# --------------------------------------------------------------------- who leaves before the end
def test_a_cancelled_request_frees_its_slot_within_one_step():
    rig = Rig()
    sinks = [rig.submit(rig.request(4, max_tokens=50)) for _ in range(SLOTS)]
    waiting = rig.submit(rig.request(4, max_tokens=2))
    rig.advance()
    sinks[0].cancel()
    rig.advance()
    assert sinks[0].summary.finish_reason is FinishReason.CANCELLED
    assert sinks[0].summary.usage.completion_tokens == 1
    assert len(waiting.chunks) == 1


def test_a_request_cancelled_while_it_waits_never_runs():
    rig = Rig()
    for _ in range(SLOTS):
        rig.submit(rig.request(4, max_tokens=5))
    waiting = rig.submit(rig.request(4))
    rig.advance()
    waiting.cancel()
    rig.advance()
    assert waiting.summary.finish_reason is FinishReason.CANCELLED
    assert phases(waiting) == [PhaseName.QUEUE]
    assert not waiting.chunks


def test_a_reader_that_left_before_it_was_admitted_is_noticed():
    rig = Rig()
    request, sink = rig.request(4), RecordingSink(rig.clock)
    sink.is_cancelled = True
    rig.admission.submit(request, sink)
    rig.run()
    assert sink.summary.finish_reason is FinishReason.CANCELLED


def test_a_deadline_ends_a_running_text():
    rig = Rig(FakeOptions(slots=4, context=256, mean_sentences=0, tokens_per_s=10))
    sink = rig.submit(rig.request(4, max_tokens=50, deadline_in=1.0))
    mate = rig.submit(rig.request(4, max_tokens=50))
    rig.run()
    assert isinstance(sink.failure, DeadlineExpired)
    assert len(sink.chunks) == 10
    assert len(mate.chunks) == 50


def test_a_deadline_ends_a_wait():
    rig = Rig(FakeOptions(slots=1, context=256, mean_sentences=0, tokens_per_s=10))
    rig.submit(rig.request(4, max_tokens=50))
    rig.advance()
    waiting = rig.submit(rig.request(4, deadline_in=1.0))
    assert rig.worker.next_deadline == rig.clock.now + 1.0
    rig.run()
    assert isinstance(waiting.failure, DeadlineExpired)
    assert not waiting.chunks
    assert rig.worker.next_deadline == math.inf


def test_a_running_deadline_is_the_next_one():
    rig = Rig()
    rig.submit(rig.request(4, max_tokens=50, deadline_in=9.0))
    rig.advance()
    assert rig.worker.next_deadline == rig.clock.now + 9.0


def test_the_deadline_of_a_text_that_lost_its_slot_is_kept():
    rig = Rig(
        FakeOptions(slots=2, context=100, mean_sentences=0), SchedulerOptions(max_kv_tokens=100)
    )
    slow = rig.submit(rig.request(30, max_tokens=20, deadline_in=5.0))
    rig.advance()
    slow.has_room = False
    rig.submit(rig.request(30, max_tokens=60))
    rig.run()
    assert rig.session.num_open == 0
    assert rig.worker.next_deadline == rig.clock.now + 5.0
    rig.clock.now += 5.0
    rig.run()
    assert isinstance(slow.failure, DeadlineExpired)


# ---------------------------------------------------------------------------------- slow readers
def test_a_slow_readers_row_pauses_and_the_others_go_on():
    rig = Rig()
    slow, mate = rig.submit(rig.request(4, max_tokens=5)), rig.submit(rig.request(4, max_tokens=5))
    rig.advance()
    slow.has_room = False
    rig.run()
    assert len(slow.chunks) == 1
    assert len(mate.chunks) == 5
    assert rig.session.num_open == 1
    slow.make_room()
    rig.run()
    assert len(slow.chunks) == 5


def test_a_slow_reader_that_lost_its_slot_waits_for_room_at_its_reader():
    rig = Rig(
        FakeOptions(slots=3, context=100, mean_sentences=0), SchedulerOptions(max_kv_tokens=100)
    )
    slow_request = rig.request(30, max_tokens=20)
    slow = rig.submit(slow_request)
    rig.advance()
    slow.has_room = False
    mate = rig.submit(rig.request(30, max_tokens=60))
    rig.run()
    assert len(mate.chunks) == 60
    assert len(slow.chunks) == 1
    assert rig.admission.num_waiting == 1
    assert rig.session.num_open == 0
    slow.make_room()
    rig.run()
    assert slow.token_ids == truth(rig, slow_request.prompt_ids, 20)


# ---------------------------------------------------------------------------------------- faults
def test_after_a_fault_every_row_runs_again_alone_and_nothing_is_lost():
    rig = Rig(FakeOptions(slots=4, context=256, mean_sentences=0, fault_at=3))
    started_request = rig.request(4, max_tokens=9)
    started = rig.submit(started_request)
    rig.advance()
    rig.advance()
    requests = [rig.request(4, max_tokens=5), rig.request(4, max_tokens=5)]
    fresh = [rig.submit(request) for request in requests]
    rig.run()
    assert started.token_ids == truth(rig, started_request.prompt_ids, 9)
    for request, sink in zip(requests, fresh, strict=True):
        assert sink.token_ids == truth(rig, request.prompt_ids, 5)
    assert rig.session.lengths[2:6] == [[1, 4, 4], [1], [4], [4]]
    assert rig.session.num_open == 0


def test_a_row_that_faults_again_fails_alone():
    rig = Rig(FakeOptions(slots=4, context=256, mean_sentences=0, poison_token=251))
    good_request = rig.request(4, max_tokens=3)
    poison = rig.submit(rig.request([1, 251, 2]))
    good = rig.submit(good_request)
    rig.run()
    assert isinstance(poison.failure, BackendFault)
    assert good.token_ids == truth(rig, good_request.prompt_ids, 3)


def test_every_failed_row_gets_an_error_of_its_own():
    rig = Rig(FakeOptions(slots=4, context=256, mean_sentences=0, poison_token=251))
    sinks = [rig.submit(rig.request([1, 251, number])) for number in range(2)]
    rig.run()
    assert all(isinstance(sink.failure, BackendFault) for sink in sinks)
    assert sinks[0].failure is not sinks[1].failure


def test_a_row_that_the_engine_refuses_costs_its_mates_nothing(monkeypatch):
    rig = Rig()
    started_request = rig.request(4, max_tokens=6)
    started = rig.submit(started_request)
    rig.advance()
    bad = rig.submit(rig.request([7, 7, 7, 7, 7]))
    engine_step = rig.session._session.step

    def step(rows: list[StepRow]) -> StepResult:
        if any(len(row.token_ids) == 5 for row in rows):
            raise InvalidRequest("a row of five")
        return engine_step(rows)

    monkeypatch.setattr(rig.session._session, "step", step)
    rig.run()
    assert isinstance(bad.failure, InvalidRequest)
    assert started.token_ids == truth(rig, started_request.prompt_ids, 6)


def test_logits_that_are_not_finite_fail_their_row_only(monkeypatch):
    rig = Rig()
    good_request = rig.request(4)
    bad, good = rig.submit(rig.request(4)), rig.submit(good_request)
    engine_step = rig.session._session.step

    def step(rows: list[StepRow]) -> StepResult:
        result = engine_step(rows)
        if len(rows) == 2:
            result.raw_log_normalizer[0] = np.nan
        return result

    monkeypatch.setattr(rig.session._session, "step", step)
    rig.run()
    assert isinstance(bad.failure, BackendFault)
    assert not bad.chunks
    assert good.token_ids == truth(rig, good_request.prompt_ids, 4)


def test_a_crash_leaves_the_worker():
    rig = Rig(FakeOptions(slots=4, crash_at=1))
    rig.submit(rig.request(4))
    with pytest.raises(BackendCrashed):
        rig.advance()


def test_a_bug_in_one_answers_text_ends_that_answer_only(monkeypatch, caplog):
    rig = Rig()
    broken_request, good_request = rig.request(4, max_tokens=5), rig.request(4, max_tokens=5)
    broken, good = rig.submit(broken_request), rig.submit(good_request)
    rig.advance()
    accept = AnswerWriter.accept

    def fail(
        self: AnswerWriter, result: StepResult, line: int, likeliest: int, num_lines: int
    ) -> TokenChunk:
        if line == 0 and self.num_sampled == 1 and not broken.is_ended:
            raise ZeroDivisionError("a bug")
        return accept(self, result, line, likeliest, num_lines)

    monkeypatch.setattr(AnswerWriter, "accept", fail)
    rig.run()
    assert isinstance(broken.failure, InvariantViolation)
    assert isinstance(broken.failure.__cause__, ZeroDivisionError)
    assert "answer broken" in caplog.text
    assert good.token_ids == truth(rig, good_request.prompt_ids, 5)


def test_a_sampler_that_cannot_say_its_pick_ends_that_answer_only(monkeypatch):
    rig = Rig()
    broken, good = rig.submit(rig.request(4)), rig.submit(rig.request(4))
    calls: list[AnswerWriter] = []

    def pick(self: AnswerWriter) -> None:
        calls.append(self)
        if len(calls) == 1:
            raise InvalidRequest("a pick that cannot be")

    monkeypatch.setattr(AnswerWriter, "pick", pick)
    rig.run()
    assert isinstance(broken.failure, InvalidRequest)
    assert good.is_ended
    assert good.error is None


def test_an_answer_that_cannot_be_made_costs_its_mates_nothing(monkeypatch):
    rig = Rig()
    bad_request = rig.request(4)
    make = AnswerWriter.__init__

    def init(self: AnswerWriter, request, *args, **kwargs) -> None:
        if request is bad_request:
            raise InvalidRequest("cannot be sampled")
        make(self, request, *args, **kwargs)

    monkeypatch.setattr(AnswerWriter, "__init__", init)
    bad, good = rig.submit(bad_request), rig.submit(rig.request(4))
    rig.run()
    assert isinstance(bad.failure, InvalidRequest)
    assert len(good.chunks) == 4
    assert rig.session.num_open == 0


# ----------------------------------------------------------------------------- memory is short
def refuse_slots(rig: Rig, monkeypatch, *, from_open: int) -> None:
    take = rig.session._session.open

    def open_slot() -> int:
        if rig.session.num_open >= from_open:
            raise MemoryBudgetExceeded("no slot now")
        return take()

    monkeypatch.setattr(rig.session._session, "open", open_slot)


def test_a_slot_that_the_session_refuses_is_asked_for_again(monkeypatch):
    rig = Rig()
    refuse_slots(rig, monkeypatch, from_open=1)
    first, second = rig.submit(rig.request(4)), rig.submit(rig.request(4))
    rig.run()
    assert len(first.chunks) == len(second.chunks) == 4


def test_a_slot_refused_although_nothing_runs_fails_the_request(monkeypatch):
    rig = Rig()
    refuse_slots(rig, monkeypatch, from_open=0)
    sink = rig.submit(rig.request(4))
    rig.run()
    assert isinstance(sink.failure, MemoryBudgetExceeded)
    assert rig.num_flushes == 1


def test_a_worker_that_only_waits_for_a_slot_is_idle(monkeypatch):
    rig = Rig()
    slow = rig.submit(rig.request(4))
    rig.advance()
    slow.has_room = False
    refuse_slots(rig, monkeypatch, from_open=1)
    waiting = rig.submit(rig.request(4))
    assert not rig.advance()
    slow.make_room()
    rig.run()
    assert len(waiting.chunks) == 4


# -------------------------------------------------------------------------------------- fail_all
def test_fail_all_tells_everyone_whatever_breaks(monkeypatch, caplog):
    rig = Rig()
    sinks = [rig.submit(rig.request(4)) for _ in range(SLOTS + 2)]
    rig.advance()
    sinks[1].error = ShuttingDown("told already")
    monkeypatch.setattr(rig.worker, "_flush", lambda: 1 / 0)
    rig.worker.fail_all(lambda: ShuttingDown("over"))
    assert all(isinstance(sink.failure, ShuttingDown) for sink in sinks)
    assert rig.admission.wait_until_empty(0)
    assert "sink broken" in caplog.text
    assert "flush broken" in caplog.text


def test_a_session_that_breaks_while_a_slot_is_closed_leaves_nobody_waiting(monkeypatch):
    rig = Rig()
    sinks = [rig.submit(rig.request(4)) for _ in range(SLOTS + 1)]
    rig.advance()

    def crash(_: int) -> None:
        raise BackendCrashed("dead")

    monkeypatch.setattr(rig.session._session, "close", crash)
    sinks[0].cancel()
    sinks[-1].cancel()
    with pytest.raises(BackendCrashed):
        rig.advance()
    rig.worker.fail_all(lambda: BackendCrashed("dead"))
    assert all(sink.is_ended for sink in sinks)
    assert rig.admission.wait_until_empty(0)


def test_a_session_that_breaks_during_a_preemption_leaves_nobody_waiting(monkeypatch):
    rig = Rig(
        FakeOptions(slots=2, context=100, mean_sentences=0), SchedulerOptions(max_kv_tokens=100)
    )
    sinks = [rig.submit(rig.request(30, max_tokens=50)) for _ in range(2)]
    rig.advance()

    def crash(_: int) -> None:
        raise BackendCrashed("dead")

    monkeypatch.setattr(rig.session._session, "close", crash)
    with pytest.raises(BackendCrashed):
        rig.run()
    rig.worker.fail_all(lambda: BackendCrashed("dead"))
    assert all(isinstance(sink.failure, BackendCrashed) for sink in sinks)
