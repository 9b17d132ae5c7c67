"""What a call of the fake engine costs, and how it fails: shared by both kinds of session."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from leptond.backend.fake.options import FakeOptions
from leptond.errors import BackendCrashed, BackendFault, InvariantViolation

__all__ = ["FakeRuntime", "Sleep"]

Sleep = Callable[[float], None]
"""Spends seconds: `time.sleep`, or the advance of a simulated clock, which costs nothing."""


class FakeRuntime:
    """Time, faults and life of one session.

    Made on the thread that owns the session; every other method must be called there (SPI, I1).
    Nothing is changed by a fault (SPI, I3): sessions ask first and change their slots after.
    """

    def __init__(self, options: FakeOptions, sleep: Sleep) -> None:
        self._options = options
        self._sleep = sleep
        self._num_calls = 0
        self._is_dead = False
        self._is_shut_down = False
        self._owner = threading.get_ident()

    @property
    def is_shut_down(self) -> bool:
        """Whether the session is over."""
        return self._is_shut_down

    def begin(self, rows: Iterable[Sequence[int]]) -> None:
        """Start the next call, with these token ids in its rows; hang or fail if it has to.

        Raises:
            BackendFault: this call is `fault_at`, or a row holds `poison_token`.
            BackendCrashed: this call is `crash_at`, or one before it was.
        """
        self.require_alive()
        self._num_calls += 1
        options = self._options
        if self._num_calls == options.stall_at:
            self._sleep(options.stall_s)
        if self._num_calls == options.crash_at:
            self._is_dead = True
            raise BackendCrashed(f"the fake engine crashed in call {self._num_calls}, as told")
        if self._num_calls == options.fault_at:
            raise BackendFault(f"the fake engine failed call {self._num_calls}, as told")
        if any(options.poison_token in row for row in rows):
            raise BackendFault(f"a row holds the poisonous token {options.poison_token}")

    def require_alive(self) -> None:
        """Raise `BackendCrashed` once the session is dead.

        Raises:
            InvariantViolation: another thread than the owner calls, or the session is over.
        """
        self.require_owner()
        if self._is_shut_down:
            raise InvariantViolation("a session was used after its shutdown")
        if self._is_dead:
            raise BackendCrashed("the fake engine's session is dead")

    def require_owner(self) -> None:
        """Raise `InvariantViolation` on any thread but the owner."""
        if threading.get_ident() != self._owner:
            raise InvariantViolation("a session was used by a thread that does not own it")

    def shut_down(self) -> None:
        """End the session; idempotent."""
        self.require_owner()
        self._is_shut_down = True

    def spend(self, num_rows: int, num_tokens: int) -> None:
        """Take as long as one step with `num_tokens` new tokens in `num_rows` rows would."""
        options = self._options
        seconds = num_rows * options.row_ms / 1000
        if options.tokens_per_s:
            seconds += 1 / options.tokens_per_s
        if options.prefill_tokens_per_s:
            seconds += (num_tokens - num_rows) / options.prefill_tokens_per_s
        if seconds:
            self._sleep(seconds)
