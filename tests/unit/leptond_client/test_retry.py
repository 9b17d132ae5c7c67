"""When a call is repeated, and after how long."""

from __future__ import annotations

import grpc
import pytest

from leptond_client import (
    Cancelled,
    DeadlineExceeded,
    NotFound,
    ResourceExhausted,
    RetryPolicy,
    Unavailable,
)
from leptond_client.retry import RetrySchedule

EVEN = RetryPolicy(
    max_wait_s=100.0, initial_backoff_s=1.0, max_backoff_s=5.0, backoff_multiplier=2.0, jitter=0.0
)


def schedule(policy=EVEN, deadline=None, draw=lambda: 0.0):
    return RetrySchedule(policy, deadline, draw)


def delay(one, error, now=0.0, *, is_known=True):
    return one.delay_after(error, now, is_known=is_known)


def test_waits_grow_up_to_the_longest():
    one = schedule()
    assert [delay(one, Unavailable("x")) for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_the_daemon_names_the_wait_without_making_the_next_longer():
    one = schedule()
    assert delay(one, Unavailable("x", retry_after_s=7.0)) == 7.0
    assert delay(one, Unavailable("x")) == 1.0


def test_jitter_only_makes_waits_longer():
    policy = RetryPolicy(initial_backoff_s=1.0, jitter=0.5)
    assert delay(schedule(policy, draw=lambda: 0.0), Unavailable("x")) == 1.0
    assert delay(schedule(policy, draw=lambda: 1.0), Unavailable("x")) == 1.5


def test_the_waits_together_have_an_end():
    one = schedule(RetryPolicy(max_wait_s=3.0, initial_backoff_s=1.0, jitter=0.0))
    assert [delay(one, Unavailable("x")) for _ in range(3)] == [1.0, 2.0, None]


def test_a_wait_that_outlasts_the_deadline_is_not_begun():
    one = schedule(deadline=10.0)
    assert delay(one, Unavailable("x"), now=8.0) == 1.0
    assert delay(one, Unavailable("x"), now=9.0) is None


def test_what_may_have_run_is_never_repeated():
    assert delay(schedule(), Unavailable("x", was_admitted=True)) is None


def test_the_daemon_can_forbid_a_repetition():
    assert delay(schedule(), Unavailable("x", must_not_repeat=True)) is None


@pytest.mark.parametrize("error", [NotFound("x"), ResourceExhausted("x"), DeadlineExceeded("x")])
def test_other_errors_are_not_repeated(error):
    assert delay(schedule(), error) is None


def test_what_the_daemon_cancelled_is_repeated():
    assert delay(schedule(), Cancelled("x")) == 1.0


def test_a_full_queue_is_repeated_where_that_is_wanted():
    policy = RetryPolicy(codes=frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED}), jitter=0.0)
    assert delay(schedule(policy), ResourceExhausted("x", retry_after_s=2.0)) == 2.0


def test_a_daemon_that_never_answered_is_waited_for_only_where_that_is_wanted():
    nobody = Unavailable("connection refused")
    assert delay(schedule(), nobody, is_known=False) is None
    assert delay(schedule(), Unavailable("x", is_from_daemon=True), is_known=False) == 1.0
    patient = RetryPolicy(initial_backoff_s=1.0, jitter=0.0, waits_for_daemon=True)
    assert delay(schedule(patient), nobody, is_known=False) == 1.0
