from __future__ import annotations

import pytest

from leptond.scheduler.estimate import PaceEstimate, RateMeter


def prefill_s(pace: PaceEstimate, num_tokens: int, *, is_shared: bool = False) -> float:
    return pace.prefill_s(num_tokens, step_tokens=100, is_shared=is_shared)


def test_what_was_not_measured_takes_no_time():
    pace = PaceEstimate()
    assert prefill_s(pace, 1_000_000) == 0.0
    assert pace.slots_s(100, 4) == 0.0


def test_prompts_are_measured_by_the_token():
    pace = PaceEstimate()
    pace.record_run(100, 0, 0.5)
    assert prefill_s(pace, 1000) == pytest.approx(5.0)


def test_short_prompts_say_nothing_of_prefill():
    pace = PaceEstimate()
    pace.record_run(5, 0, 0.5)
    assert prefill_s(pace, 1000) == 0.0


def test_running_texts_take_their_part_of_each_step():
    pace = PaceEstimate()
    pace.record_run(0, 8, 0.05)
    pace.record_run(100, 0, 0.5)
    assert prefill_s(pace, 250) == pytest.approx(1.25)
    assert prefill_s(pace, 250, is_shared=True) == pytest.approx(1.25 + 3 * 0.05)


def test_what_the_texts_take_is_not_put_down_to_a_prompt_that_rides_along():
    pace = PaceEstimate()
    pace.record_run(0, 8, 0.05)
    pace.record_run(50, 8, 0.10)
    assert prefill_s(pace, 100) == pytest.approx(0.1)
    pace.record_run(50, 8, 0.01)
    assert prefill_s(pace, 100) >= 0.0


def test_the_newest_measurements_count_most():
    pace = PaceEstimate()
    pace.record_run(100, 0, 1.0)
    for _ in range(30):
        pace.record_run(100, 0, 2.0)
    assert prefill_s(pace, 100) == pytest.approx(2.0, rel=0.01)


def test_slots_come_free_as_often_as_requests_end():
    pace = PaceEstimate()
    pace.record_release(8.0)
    assert pace.slots_s(3, 4) == pytest.approx(6.0)
    assert pace.slots_s(-1, 4) == 0.0


@pytest.mark.parametrize(("held_s", "expected"), [(None, 1.0), (8.0, 2.0), (0.01, 0.05), (1e6, 30)])
def test_a_retry_is_worth_it_when_the_next_slot_comes_free(held_s: float | None, expected: float):
    pace = PaceEstimate()
    if held_s is not None:
        pace.record_release(held_s)
    assert pace.retry_after_s(4) == expected


def test_the_rate_is_that_of_the_last_seconds():
    meter = RateMeter(window_s=5)
    assert meter.per_second(100.0) == 0.0
    for second in range(100, 110):
        meter.add(6, second + 0.2)
        meter.add(4, second + 0.7)
    assert meter.per_second(110.0) == pytest.approx(10.0)
    assert meter.per_second(112.0) == pytest.approx(6.0)
    assert meter.per_second(200.0) == 0.0


def test_the_second_that_runs_counts_for_what_has_passed_of_it():
    meter = RateMeter(window_s=1)
    meter.add(10, 100.0)
    assert meter.per_second(100.0) == pytest.approx(10.0)
    assert meter.per_second(100.5) == pytest.approx(10 / 1.5)
