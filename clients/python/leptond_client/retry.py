"""The retry rule: when a call that failed is repeated, and after how long.

A daemon sends initial metadata once it has admitted a call. A call that ended without any was not
run, so repeating it does no harm. Pure: the clock's readings come in as arguments, the waiting is
done by the transports.

gRPC's own retryPolicy obeys the same rule and serves clients in other languages well. It is not
used here because it ends after five attempts, whatever the deadline, and because together with
`waitForReady` it never tells a user that no daemon is there (docs/adr/0006-client.md).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from leptond_client.errors import LeptonError

__all__ = ["RetryPolicy", "RetrySchedule"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When calls that were not run are repeated.

    Attributes:
        max_wait_s: the waits of one call together take at most so long; its timeout bounds them
            as well. 0 repeats nothing.
        initial_backoff_s: the first wait, where the daemon does not name one.
        max_backoff_s: the longest wait, where the daemon does not name one.
        backoff_multiplier: by how much each wait is longer than the one before.
        jitter: a wait is longer by a random share of itself, at most this.
        codes: the statuses after which a call is repeated. RESOURCE_EXHAUSTED may be added: the
            daemon then names the wait.
        waits_for_daemon: whether a client that no daemon has ever answered waits for one. If not,
            its call fails at once: a wrong address is more likely than a restart.
    """

    max_wait_s: float = 30.0
    initial_backoff_s: float = 0.1
    max_backoff_s: float = 2.0
    backoff_multiplier: float = 2.0
    jitter: float = 0.2
    codes: frozenset[grpc.StatusCode] = frozenset(
        {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    )
    waits_for_daemon: bool = False


class RetrySchedule:
    """The waits of one call.

    Args:
        policy: the rule.
        deadline: when the call's timeout passes, in seconds of the caller's clock; None never.
        draw: random numbers in [0, 1).
    """

    def __init__(
        self,
        policy: RetryPolicy,
        deadline: float | None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._deadline = deadline
        self._draw = draw
        self._left_s = policy.max_wait_s
        self._backoff_s = policy.initial_backoff_s

    def delay_after(self, error: LeptonError, now: float, *, is_known: bool) -> float | None:
        """Seconds to wait before the call is repeated, or None if it is not.

        Args:
            error: how the last attempt ended.
            now: the caller's clock, in seconds.
            is_known: whether a daemon has ever answered this client.
        """
        policy = self._policy
        if error.was_admitted or error.must_not_repeat or error.code not in policy.codes:
            return None
        if not (is_known or error.is_from_daemon or policy.waits_for_daemon):
            return None
        wait_s = error.retry_after_s
        if wait_s is None:
            wait_s = self._backoff_s
            self._backoff_s = min(wait_s * policy.backoff_multiplier, policy.max_backoff_s)
        wait_s *= 1 + policy.jitter * self._draw()
        self._left_s -= wait_s
        if self._left_s < 0 or (self._deadline is not None and now + wait_s >= self._deadline):
            return None
        return wait_s
