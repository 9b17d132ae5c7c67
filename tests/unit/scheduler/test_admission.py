from __future__ import annotations

import math
from dataclasses import replace

import pytest

from leptond.backend.fake import FakeOptions
from leptond.errors import (
    DeadlineExpired,
    InvalidRequest,
    QueueFull,
    RequestTooLarge,
    ShuttingDown,
    UnsupportedCapability,
)
from leptond.scheduler import SchedulerOptions
from leptond.types import GenerationRequest, StopConditions
from tests.unit.scheduler.rig import Rig

# Time of a step: 0.1 s, and 0.01 s for each prompt token.
FAKE = FakeOptions(
    slots=2, context=256, mean_sentences=0, tokens_per_s=10, prefill_tokens_per_s=100
)


# --------------------------------------------------------------------------------- what is wrong
def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused():
    rig = Rig(FakeOptions(slots=1, context=32))
    with pytest.raises(RequestTooLarge, match=r"32 tokens; .* model fake takes 32"):
        rig.submit(rig.request(32))
    sink = rig.submit(rig.request(31, max_tokens=9))
    rig.run()
    assert len(sink.token_ids) == 1


def test_a_prompt_larger_than_the_memory_for_all_is_refused():
    rig = Rig(options=SchedulerOptions(max_kv_tokens=20))
    with pytest.raises(RequestTooLarge):
        rig.submit(rig.request(20))


@pytest.mark.parametrize("prompt", [(), (-1,), (1, 2, 259)])
def test_a_prompt_must_hold_tokens_of_the_model(prompt: tuple[int, ...]):
    rig = Rig()
    with pytest.raises(InvalidRequest) as refusal:
        rig.submit(rig.request(prompt))
    assert refusal.value.field == "prompt"


def test_an_answer_of_no_tokens_is_refused():
    rig = Rig()
    with pytest.raises(InvalidRequest, match="at least 1"):
        rig.submit(rig.request(4, max_tokens=0))


def test_what_needs_a_tokenizer_is_refused_by_name_without_one():
    rig = Rig()
    with pytest.raises(UnsupportedCapability, match="stop_strings"):
        rig.submit(rig.request(4, stop=StopConditions(4, stop_strings=("x",))))
    with pytest.raises(UnsupportedCapability, match="logprobs"):
        rig.submit(rig.request(4, num_top_logprobs=0))


# ------------------------------------------------------------------------------------- the bound
def test_the_queue_is_bounded():
    rig = Rig(options=SchedulerOptions(max_queued=1, max_running=2))
    for _ in range(3):
        rig.submit(rig.request(4))
    with pytest.raises(QueueFull) as refusal:
        rig.submit(rig.request(4))
    assert refusal.value.retry_after_s == 1.0
    rig.run()
    rig.submit(rig.request(4))


def test_a_queue_of_none_lets_in_as_many_as_run():
    rig = Rig(options=SchedulerOptions(max_queued=0, max_running=2))
    for _ in range(2):
        rig.submit(rig.request(4))
    with pytest.raises(QueueFull):
        rig.submit(rig.request(4))


def test_a_full_queue_says_when_the_next_slot_comes_free():
    rig = Rig(FAKE, SchedulerOptions(max_queued=0))
    rig.submit(rig.request(1, max_tokens=40))
    rig.run()
    for _ in range(2):
        rig.submit(rig.request(4))
    with pytest.raises(QueueFull) as refusal:
        rig.submit(rig.request(4))
    assert refusal.value.retry_after_s == pytest.approx(4.0 / 2)


# ------------------------------------------------------------------------------------- deadlines
def test_a_deadline_that_is_past_is_refused():
    rig = Rig()
    with pytest.raises(DeadlineExpired, match="had passed"):
        rig.submit(rig.request(4, deadline_in=0.0))


def test_nothing_is_refused_on_a_guess():
    rig = Rig(FAKE)
    for _ in range(8):
        rig.submit(rig.request(200, deadline_in=0.001))


def measured_rig() -> Rig:
    """A rig that has seen one long prompt (0.01 s a token) and one text (0.1 s a step)."""
    rig = Rig(FAKE)
    rig.submit(rig.request(200, max_tokens=21))
    rig.run()
    return rig


def test_a_prompt_that_takes_longer_than_its_deadline_is_refused():
    rig = measured_rig()
    with pytest.raises(DeadlineExpired, match="first token would take about") as refusal:
        rig.submit(rig.request(200, deadline_in=1.9))
    assert float(refusal.value.details["estimated_first_token_s"]) == pytest.approx(2.1, abs=0.05)
    sink = rig.submit(rig.request(200, max_tokens=1, deadline_in=2.2))
    rig.run()
    assert len(sink.chunks) == 1


def test_prompts_ahead_count():
    rig = measured_rig()
    rig.submit(rig.request(200))
    with pytest.raises(DeadlineExpired):
        rig.submit(rig.request(50, deadline_in=1.0, priority=-8))
    rig.submit(rig.request(50, deadline_in=1.0))


def test_prompts_that_run_already_count():
    rig = Rig(FAKE, SchedulerOptions(step_token_budget=100))
    rig.submit(rig.request(100, max_tokens=1))
    rig.run()
    rig.submit(rig.request(250, max_tokens=1))
    rig.advance()
    assert rig.admission.num_prefill_tokens == 150 - 1
    with pytest.raises(DeadlineExpired):
        rig.submit(rig.request(50, deadline_in=1.5))
    rig.run()
    assert rig.admission.num_prefill_tokens == 0
    rig.submit(rig.request(50, deadline_in=1.5))


def test_the_wait_for_a_slot_counts():
    rig = measured_rig()
    for _ in range(2):
        rig.submit(rig.request(4, max_tokens=200))
    rig.advance()
    # Two slots, and a request holds one for about 4 s: one comes free every 2 s.
    with pytest.raises(DeadlineExpired):
        rig.submit(rig.request(4, deadline_in=1.5))
    rig.submit(rig.request(4, deadline_in=2.5))


def test_those_ahead_in_the_wait_for_a_slot_count():
    rig = measured_rig()
    for _ in range(3):
        rig.submit(rig.request(4, max_tokens=200))
    rig.advance()
    with pytest.raises(DeadlineExpired):
        rig.submit(rig.request(4, deadline_in=3.5, priority=-8))
    rig.submit(rig.request(4, deadline_in=4.5, priority=-8))


# ------------------------------------------------------------------------------- closed and quiet
def test_a_closed_door_refuses_with_what_the_first_who_closed_it_said():
    rig = Rig()
    rig.admission.close(lambda: ShuttingDown("first"))
    rig.admission.close(lambda: InvalidRequest("second"))
    with pytest.raises(ShuttingDown, match="first"):
        rig.submit(rig.request(4))


def test_news_since_the_round_began_end_the_wait_at_once():
    rig = Rig()
    admission = rig.admission
    assert not admission.begin_round()
    rig.submit(rig.request(4))
    admission.wait(math.inf)
    assert admission.begin_round()
    assert not admission.begin_round()
    admission.ring()
    admission.wait(math.inf)
    assert admission.begin_round()


def test_a_wait_whose_end_is_past_does_not_block():
    rig = Rig()
    rig.admission.wait(rig.clock.now)
    rig.admission.wait(rig.clock.now - 1.0)


def test_the_wait_for_emptiness_gives_up():
    rig = Rig()
    assert rig.admission.wait_until_empty(0)
    rig.submit(rig.request(4))
    assert not rig.admission.wait_until_empty(0)
    rig.run()
    assert rig.admission.wait_until_empty(0)


def test_what_waits_and_runs_is_counted():
    rig = Rig(FAKE)
    for _ in range(3):
        rig.submit(rig.request(4, max_tokens=9))
    rig.advance()
    assert (rig.admission.num_waiting, rig.admission.num_running) == (1, 2)
    assert rig.admission.num_waiting_tokens == 4


def test_requests_are_values_that_nothing_changes():
    rig = Rig()
    request: GenerationRequest = rig.request(4)
    copy = replace(request)
    rig.submit(request)
    rig.run()
    assert request == copy
