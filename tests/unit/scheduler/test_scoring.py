"""Answers that are given: scored by the same steps that write others."""

from __future__ import annotations

import numpy as np
import pytest

from leptond.backend import SessionOptions, StepRow, StepSession
from leptond.backend.fake import FakeModel, FakeOptions
from leptond.errors import DeadlineExpired, InvalidRequest, RequestTooLarge
from leptond.scheduler import SchedulerOptions
from leptond.types import FinishReason, ScoringRequest
from tests.unit.scheduler.rig import RecordingSink, Rig

FAKE = FakeOptions(slots=4, context=256, mean_sentences=0)


def ids(count: int, start: int = 0) -> tuple[int, ...]:
    return tuple((start * 31 + 7 * number) % 250 for number in range(count))


def expected(request: ScoringRequest) -> list[float]:
    """What the engine says when it is asked for every position at once."""
    session = FakeModel(FAKE, lambda seconds: None).open_session(SessionOptions(1, 256))
    assert isinstance(session, StepSession)
    tokens = request.prompt_ids
    result = session.step([StepRow(session.open(), tokens, len(tokens))])
    first = len(request.context_ids) - 1
    return [
        float(result.logits[first + place, token] - result.raw_log_normalizer[first + place])
        for place, token in enumerate(request.target_ids)
    ]


def score(rig: Rig, request: ScoringRequest) -> RecordingSink:
    sink = RecordingSink(rig.clock)
    rig.admission.submit_scoring(request, sink)
    return sink


def found(sink: RecordingSink) -> list[float]:
    return [entry.logprob for chunk in sink.chunks for entry in chunk.logprobs]


@pytest.mark.parametrize("budget", [512, 7, 4])
@pytest.mark.parametrize(("context", "target"), [(1, 1), (1, 30), (20, 30), (9, 1), (3, 150)])
def test_scores_are_the_engines_own_however_the_text_is_cut(budget, context, target):
    rig = Rig(FAKE, SchedulerOptions(step_token_budget=budget, prefill_chunk_tokens=budget))
    request = ScoringRequest("s", ids(context), ids(target, 3))
    sink = score(rig, request)
    others = [rig.submit(rig.request(5, max_tokens=8)), score(rig, request)]
    rig.run()
    np.testing.assert_allclose(found(sink), expected(request), atol=1e-5)
    assert sink.token_ids == list(request.target_ids)
    assert sink.summary.finish_reason is FinishReason.STOP
    assert sink.summary.usage.prompt_tokens == context + target - 1
    assert sink.summary.usage.completion_tokens == 0
    assert others[0].summary.usage.completion_tokens == 8
    np.testing.assert_allclose(found(others[1]), expected(request), atol=1e-5)
    assert rig.session.num_open == 0


def test_logits_are_wanted_of_few_positions_at_a_time():
    rig = Rig(FAKE, SchedulerOptions(step_token_budget=512))
    score(rig, ScoringRequest("s", ids(20), ids(150)))
    rig.run()
    wanted = [row.num_logits for step in rig.session.steps for row in step]
    assert sum(wanted) == 150
    assert max(wanted) == 64


def test_a_text_that_loses_its_slot_is_scored_once():
    options = SchedulerOptions(max_kv_tokens=70, step_token_budget=16, prefill_chunk_tokens=8)
    rig = Rig(FAKE, options)
    urgent = [rig.submit(rig.request(10, max_tokens=30, priority=5)) for _ in range(2)]
    request = ScoringRequest("s", ids(4), ids(24, 2))
    sink = score(rig, request)
    rig.run()
    np.testing.assert_allclose(found(sink), expected(request), atol=1e-5)
    assert all(len(other.token_ids) == 30 for other in urgent)


def test_alternatives_come_best_first():
    rig = Rig(FAKE)
    sink = score(rig, ScoringRequest("s", ids(4), ids(3, 2), num_top_logprobs=5))
    rig.run()
    for chunk in sink.chunks:
        for entry in chunk.logprobs:
            values = [other.logprob for other in entry.top]
            assert len(values) == 5
            assert values == sorted(values, reverse=True)
            assert entry.logprob <= values[0] + 1e-6


def test_a_reader_that_leaves_and_a_deadline_end_it():
    rig = Rig(FAKE, SchedulerOptions(step_token_budget=4, prefill_chunk_tokens=4))
    left = score(rig, ScoringRequest("a", ids(4), ids(40)))
    late = score(rig, ScoringRequest("b", ids(4), ids(40), deadline=rig.clock.now + 5))
    rig.advance()
    left.cancel()
    rig.clock.sleep(10)
    rig.run()
    assert left.summary.finish_reason is FinishReason.CANCELLED
    assert isinstance(late.failure, DeadlineExpired)
    assert rig.session.num_open == 0


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (ScoringRequest("s", (), (1,)), InvalidRequest, "context has no tokens"),
        (ScoringRequest("s", (1,), ()), InvalidRequest, "target has no tokens"),
        (ScoringRequest("s", (1,), (1 << 20,)), InvalidRequest, "target has a token id outside"),
        (ScoringRequest("s", ids(200), ids(57)), RequestTooLarge, "257 tokens; model fake takes"),
    ],
)
def test_what_cannot_be_scored_is_refused(request_, error, message):
    with pytest.raises(error, match=message):
        score(Rig(FAKE), request_)
