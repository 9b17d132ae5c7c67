"""Counting of spans that no collector got, and a log line about them once a minute at most."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from leptond.telemetry.fields import Fields

__all__ = ["SpanLosses"]

logger = logging.getLogger(__name__)

_REPORT_INTERVAL_S: Final = 60.0


class SpanLosses:
    """Lost spans by reason. Any thread adds; an exporter's thread reports."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._num_reported = 0
        self._last_report = -_REPORT_INTERVAL_S

    @property
    def counts(self) -> Mapping[str, int]:
        """Lost spans by reason, since the start."""
        with self._lock:
            return dict(self._counts)

    def add(self, reason: str, num_spans: int) -> None:
        """Count lost spans. Never logs: it is called on the event loop."""
        with self._lock:
            self._counts[reason] = self._counts.get(reason, 0) + num_spans

    def report(self, *, is_last: bool = False) -> None:
        """Log what was lost since the last report, when that is a minute ago or `is_last`."""
        counts = self.counts
        total = sum(counts.values())
        now = self._clock()
        if total == self._num_reported:
            return
        if not is_last and now - self._last_report < _REPORT_INTERVAL_S:
            return
        num_new, self._num_reported, self._last_report = total - self._num_reported, total, now
        logger.warning("spans lost %s", Fields(num_spans=num_new, total=total, **counts))
