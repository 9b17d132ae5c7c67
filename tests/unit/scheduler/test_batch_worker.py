from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from leptond.backend import BatchRow, EmittedChunk
from leptond.backend.fake import EMBEDDING_DIMENSIONS
from leptond.errors import (
    BackendCrashed,
    BackendFault,
    DeadlineExpired,
    InvalidRequest,
    InvariantViolation,
    QueueFull,
    RequestTooLarge,
    ShuttingDown,
)
from leptond.scheduler import BatchItem, BatchRequest, ComputeLease, SchedulerOptions
from leptond.types import PhaseName
from tests.unit.scheduler.batch_rig import AnswerSink, BatchRig, Emit, answers, batch_fake

FINAL = EmittedChunk(is_final=True)


def embeddings(sink: AnswerSink) -> dict[int, list[float]]:
    return {
        index: chunk.tensors["embedding"].tolist()
        for index, (chunk,) in answers(sink).items()
        if chunk.is_final
    }


def indexes(sink: AnswerSink) -> list[int]:
    return [item.index for item in sink.items]


def test_items_of_many_callers_share_a_run_and_each_gets_its_own():
    rig = BatchRig()
    requests = [rig.request(5, 7), rig.request(3)]
    sinks = [rig.submit(request) for request in requests]
    assert rig.run() == 1
    assert rig.session.lengths == [[5, 7, 3]]
    for request, sink in zip(requests, sinks, strict=True):
        alone = BatchRig()
        expected = alone.submit(request)
        alone.run()
        assert embeddings(sink) == embeddings(expected)
        assert len(embeddings(sink)[0]) == EMBEDDING_DIMENSIONS


def test_more_items_than_rows_take_several_runs_and_keep_their_indexes():
    rig = BatchRig()
    sink = rig.embed(3, 20, 4, 5, 6, 21, 7)
    assert rig.run() == 3
    assert rig.session.lengths == [[3, 4, 5, 6], [20, 21], [7]]
    assert indexes(sink) == [0, 2, 3, 4, 1, 5, 6]
    assert rig.admission.num_running == rig.admission.num_waiting == 0


def test_rows_of_other_options_run_apart():
    rig = BatchRig()
    rig.embed(3)
    translation = rig.submit(rig.request(3, task="translate", max_tokens=2))
    assert rig.run() == 2
    assert [chunk.is_final for chunk in answers(translation)[0]] == [False, False, True]


def test_phases_and_usage_of_items():
    rig = BatchRig(batch_fake(tokens_per_s=10, slots=1))
    first, second = rig.embed(4), rig.embed(6)
    rig.run()
    assert [phase.name for phase in first.summary.phases] == [PhaseName.QUEUE, PhaseName.PREFILL]
    queue, prefill = second.summary.phases
    assert queue.duration_s == pytest.approx(0.1)
    assert queue.end == prefill.start
    assert prefill.duration_s == pytest.approx(0.1)
    assert second.summary.usage.prompt_tokens == 6
    assert second.summary.usage.completion_tokens == 0


def test_items_answered_token_by_token_have_a_decode_phase_and_are_counted():
    rig = BatchRig(batch_fake(tokens_per_s=10))
    sink = rig.submit(rig.request(4, task="translate", max_tokens=3))
    rig.run()
    assert [phase.name for phase in sink.summary.phases] == ["queue", "prefill", "decode"]
    assert sink.summary.usage.completion_tokens == 3
    assert rig.worker.sampled.per_second(rig.clock.now) > 0
    assert sink.summary.phases[-1].duration_s == pytest.approx(0.3)


def test_a_cancelled_caller_is_not_put_into_a_run():
    rig = BatchRig()
    gone, other = rig.embed(3), rig.embed(4)
    gone.cancel()
    rig.run()
    assert rig.session.lengths == [[4]]
    assert gone.final is not None
    assert gone.items == []
    assert other.final is not None


def test_a_row_cancelled_in_its_run_ends_at_its_next_chunk():
    rig = BatchRig()
    gone = rig.submit(rig.request(3, task="translate", max_tokens=8))
    mate = rig.submit(rig.request(3, task="translate", max_tokens=8))
    rig.session.on_emit = lambda index: gone.cancel() if len(mate.items) == 2 else None
    rig.run()
    assert len(gone.items) == 2
    assert len(mate.items) == 9
    assert rig.session.num_interrupts == 0


def test_the_engine_is_interrupted_when_every_caller_of_a_run_is_gone():
    rig = BatchRig()
    sinks = [rig.submit(rig.request(3, task="translate", max_tokens=50)) for _ in range(3)]

    def leave(_: int) -> None:
        for sink in sinks:
            sink.is_cancelled = True

    rig.session.on_emit = leave
    assert rig.run() == 1
    assert [len(sink.items) for sink in sinks] == [1, 0, 0]
    assert all(sink.final is not None for sink in sinks)
    assert rig.session.num_interrupts >= 1


def test_a_run_without_chunks_is_interrupted_by_the_last_caller_that_leaves():
    rig = BatchRig()
    sinks = [rig.embed(3), rig.embed(3)]
    counts: list[int] = []

    def leave(rows: Sequence[BatchRow], emit: Emit) -> None:
        for sink in sinks:
            sink.cancel()
            counts.append(rig.session.num_interrupts)

    rig.session.script = leave
    rig.run()
    assert counts == [0, 1]
    assert all(sink.final is not None for sink in sinks)
    sinks[0].wake()
    assert rig.session.num_interrupts == 1


def test_an_expired_row_ends_at_its_next_chunk():
    rig = BatchRig(batch_fake(tokens_per_s=10))
    late = rig.submit(rig.request(3, task="translate", max_tokens=20, deadline_in=0.35))
    mate = rig.submit(rig.request(3, task="translate", max_tokens=20))
    rig.run()
    assert isinstance(late.failure, DeadlineExpired)
    assert len(late.items) == 3
    assert len(mate.items) == 21


def test_who_waits_is_told_of_its_deadline_while_the_engine_runs():
    rig = BatchRig(batch_fake(tokens_per_s=10), SchedulerOptions(priority_step_s=100))
    rig.submit(rig.request(3, priority=1, task="translate", max_tokens=20))
    waiting = rig.embed(3, deadline_in=0.5)
    cancelled = rig.embed(3)
    told: list[float] = []

    def look(_: int) -> None:
        if rig.clock.now > 1000.75:
            cancelled.cancel()
        if waiting.is_ended and cancelled.is_ended:
            told.append(rig.clock.now)

    rig.session.on_emit = look
    rig.run()
    assert told[0] < 1001.0
    assert isinstance(waiting.failure, DeadlineExpired)
    assert len(rig.session.runs) == 1


def test_a_request_past_its_deadline_is_refused():
    rig = BatchRig()
    with pytest.raises(DeadlineExpired, match="had passed"):
        rig.embed(3, deadline_in=0.0)


def test_a_request_that_cannot_make_its_deadline_is_refused():
    rig = BatchRig(batch_fake(prefill_tokens_per_s=100, slots=1))
    rig.embed(40)
    rig.run()
    rig.embed(40)
    with pytest.raises(DeadlineExpired, match="would take about"):
        rig.embed(40, deadline_in=0.3)
    # It is due before the one that waits.
    rig.embed(40, deadline_in=0.5)


def test_a_full_queue_refuses_with_a_time_to_retry():
    rig = BatchRig(options=SchedulerOptions(max_queued=1))
    for _ in range(5):
        rig.embed(3)
    with pytest.raises(QueueFull) as refusal:
        rig.embed(3)
    assert refusal.value.retry_after_s
    rig.run()
    rig.embed(3)


def test_what_can_never_be_served_is_refused():
    rig = BatchRig()
    with pytest.raises(InvalidRequest, match="no items"):
        rig.embed()
    with pytest.raises(RequestTooLarge, match=r"items\[1\] has 65 tokens"):
        rig.embed(64, 65)
    row = BatchRow((1,))
    with pytest.raises(InvalidRequest, match="costs 0 tokens"):
        rig.submit(BatchRequest("r", (BatchItem(row, 0),)))


def test_a_bad_item_fails_its_own_request_and_says_which():
    rig = BatchRig(batch_fake(poison_token=255))
    bad_request = rig.request(3, 3)
    bad_row = BatchRow((255,), options={"task": "embed"})
    bad_request = BatchRequest("bad", (*bad_request.items, BatchItem(bad_row, 1)))
    mate, bad = rig.embed(3), rig.submit(bad_request)
    rig.run()
    assert rig.session.lengths == [[3, 3, 3, 1], [3], [3], [3], [1]]
    assert embeddings(mate).keys() == {0}
    assert embeddings(bad).keys() == {0, 1}
    assert isinstance(bad.failure, BackendFault)
    assert bad.failure.details == {"index": "2"}


def test_the_rest_of_a_failed_request_is_not_run():
    rig = BatchRig(batch_fake(poison_token=255))
    row = BatchRow((255,), options={"task": "embed"})
    good = rig.request(3, 3, 3, 3, 3).items
    bad = rig.submit(BatchRequest("bad", (BatchItem(row, 1), *good)))
    other = rig.embed(9)
    rig.run()
    assert isinstance(bad.failure, BackendFault)
    assert rig.session.lengths == [[1, 3, 3, 3], [1], [9]]
    assert other.final is not None
    assert rig.admission.num_running == 0


def test_a_refused_row_does_not_fail_its_mates():
    rig = BatchRig()
    unknown = BatchRow((1 << 20,), options={"task": "embed"})
    bad = rig.submit(BatchRequest("bad", (BatchItem(unknown, 1),)))
    mate = rig.embed(3)
    rig.run()
    assert isinstance(bad.failure, InvalidRequest)
    assert bad.failure.field == "token_ids"
    assert mate.final is not None


def test_a_row_that_has_sent_something_is_not_run_again():
    rig = BatchRig()
    sinks = [rig.embed(3) for _ in range(3)]

    def fail_half_way(rows: Sequence[BatchRow], emit: Emit) -> None:
        rig.session.script = None
        emit(0, FINAL)
        emit(1, EmittedChunk(token_ids=(7,)))
        raise BackendFault("half-way")

    rig.session.script = fail_half_way
    rig.run()
    assert sinks[0].final is not None
    assert sinks[1].failure.message == "half-way"
    assert embeddings(sinks[2]).keys() == {0}
    assert rig.session.lengths == [[3, 3, 3], [3]]


def test_who_leaves_before_its_second_chance_has_none():
    rig = BatchRig(batch_fake(fault_at=1))
    sinks = [rig.embed(3), rig.embed(4)]
    rig.session.before_run = lambda rows: sinks[1].cancel()
    rig.run()
    assert rig.session.lengths == [[3, 4], [3]]
    assert sinks[1].final is not None


def test_who_leaves_in_its_second_failure_was_cancelled():
    rig = BatchRig(batch_fake(poison_token=255))
    sink = rig.submit(BatchRequest("r", (BatchItem(BatchRow((255,)), 1),)))

    def leave(rows: Sequence[BatchRow]) -> None:
        sink.is_cancelled = len(rig.session.runs) == 2

    rig.session.before_run = leave
    rig.run()
    assert sink.final is not None


def test_an_engine_that_forgets_a_row_fails_it():
    rig = BatchRig()
    sinks = [rig.embed(3), rig.embed(3)]

    def forget(rows: Sequence[BatchRow], emit: Emit) -> None:
        emit(1, FINAL)

    rig.session.script = forget
    rig.run()
    assert "without an answer" in sinks[0].failure.message
    assert sinks[1].final is not None


def test_an_engine_that_answers_a_row_too_often_is_told_to_stop():
    rig = BatchRig()
    sink = rig.embed(3)
    said: list[bool] = []

    def repeat(rows: Sequence[BatchRow], emit: Emit) -> None:
        said.extend([emit(0, FINAL), emit(0, FINAL)])

    rig.session.script = repeat
    rig.run()
    assert said == [False, False]
    assert len(sink.items) == 1


def test_a_crash_is_the_workers_end():
    rig = BatchRig(batch_fake(crash_at=1))
    sinks = [rig.embed(3), rig.embed(40)]
    with pytest.raises(BackendCrashed):
        rig.advance()
    rig.worker.fail_all(lambda: BackendCrashed("dead"))
    assert [sink.failure.message for sink in sinks] == ["dead", "dead"]
    rig.worker.fail_all(lambda: BackendCrashed("again"))


def test_failing_all_tells_everyone_although_a_sink_and_the_flush_are_broken(
    caplog: pytest.LogCaptureFixture,
):
    rig = BatchRig(batch_fake(crash_at=1))
    sinks = [rig.embed(3), rig.embed(3, 40), rig.embed(40)]
    with pytest.raises(BackendCrashed):
        rig.advance()
    sinks[0].fail(ShuttingDown("early"))

    def break_flush() -> None:
        raise RuntimeError("flush")

    rig.worker._flush = break_flush
    rig.worker.fail_all(lambda: BackendCrashed("dead"))
    assert [sink.failure.message for sink in sinks] == ["early", "dead", "dead"]
    assert "sink broken" in caplog.text
    assert "flush broken" in caplog.text
    rig.admission.check_integrity()
    assert rig.admission.num_running == 0


def test_a_halted_worker_leaves_the_rest_to_be_told():
    rig = BatchRig()
    running = rig.submit(rig.request(3, 3, 3, 3, 3, task="translate", max_tokens=50))
    rig.session.on_emit = lambda index: rig.worker.halt() if len(running.items) == 6 else None
    assert rig.advance()
    assert rig.session.num_interrupts >= 1
    assert not running.is_ended
    rig.worker.fail_all(lambda: ShuttingDown("stop"))
    assert isinstance(running.failure, ShuttingDown)
    assert 6 <= len(running.items) < 10


def test_a_halted_worker_gives_no_second_chances():
    rig = BatchRig(batch_fake(fault_at=1))
    sink = rig.embed(3)
    rig.session.before_run = lambda rows: rig.worker.halt()
    assert rig.advance()
    assert len(rig.session.runs) == 1
    rig.worker.fail_all(lambda: ShuttingDown("stop"))
    assert isinstance(sink.failure, ShuttingDown)


def test_halting_an_idle_worker_leaves_the_engine_alone():
    rig = BatchRig()
    rig.worker.halt()
    assert rig.session.num_interrupts == 0


def test_a_broken_sink_ends_its_own_request_only(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    rig = BatchRig()
    broken, mate = rig.embed(3), rig.embed(3)

    def push(_: object) -> None:
        raise RuntimeError("no push")

    monkeypatch.setattr(broken, "push", push)
    rig.run()
    assert isinstance(broken.failure, InvariantViolation)
    assert "answer broken" in caplog.text
    assert mate.final is not None


def test_a_reader_that_is_far_behind_waits_for_itself_only():
    rig = BatchRig()
    slow, mate = rig.embed(3, 3, 3, 3, 3, 3), rig.embed(4)
    slow.has_room = False
    rig.run()
    assert mate.final is not None
    assert slow.items == []
    slow.has_room = True
    slow.wake()
    rig.run()
    assert indexes(slow) == [0, 1, 2, 3, 4, 5]


def test_tenants_take_turns_between_runs():
    rig = BatchRig()
    rig.embed(*[16] * 12, tenant="bulk")
    one = rig.embed(16, tenant="other")
    rig.advance()
    assert not one.is_ended
    rig.advance()
    assert one.is_ended


def test_the_urgent_go_first():
    rig = BatchRig(batch_fake(slots=1))
    late, soon = rig.embed(3), rig.embed(3, priority=1)
    rig.advance()
    assert soon.is_ended
    assert not late.is_ended


def test_each_chunk_is_flushed_at_once():
    rig = BatchRig()
    sink = rig.embed(3, 3)
    counts: list[tuple[int, int]] = []
    rig.session.on_emit = lambda index: counts.append((len(sink.items), rig.num_flushes))
    rig.run()
    assert counts == [(1, 1), (2, 2)]


def test_the_cores_are_given_away_between_chunks_that_took_time_to_compute(
    monkeypatch: pytest.MonkeyPatch,
):
    rig = BatchRig(batch_fake(tokens_per_s=100))
    turns: list[float] = []
    monkeypatch.setattr(ComputeLease, "give_way", lambda _: turns.append(rig.clock.now))
    sinks = [rig.submit(rig.request(3, task="translate", max_tokens=4)) for _ in range(2)]
    rig.run()
    # The start and four tokens, once each and not for every row.
    assert turns == pytest.approx([1000 + 0.01 * (i + 1) for i in range(5)])
    assert all(len(sink.items) == 5 for sink in sinks)


def test_answers_are_the_engines_own_arrays():
    rig = BatchRig()
    row = BatchRow(tensors={"x": np.arange(3)})
    sink = rig.submit(BatchRequest("r", (BatchItem(row, 3),)))
    rig.run()
    assert sink.items[0].chunk.tensors["x"].tolist() == [1, 3, 5]
