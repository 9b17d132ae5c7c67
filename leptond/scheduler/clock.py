"""Where time comes from, so that tests can bring their own."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["MONOTONIC", "Clock"]


class Clock(Protocol):
    """A monotonic clock. Thread: any."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never runs back."""
        ...


class _MonotonicClock:
    """The machine's own."""

    monotonic = staticmethod(time.monotonic)


MONOTONIC: Clock = _MonotonicClock()
"""The clock of every deadline in the daemon: `time.monotonic`."""
