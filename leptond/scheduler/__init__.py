"""Admission, queues, batch planning and worker threads; one `StepScheduler` per loaded model."""

from __future__ import annotations

from leptond.scheduler.clock import MONOTONIC, Clock
from leptond.scheduler.compute import ComputeBudget, ComputeLease
from leptond.scheduler.options import SchedulerOptions
from leptond.scheduler.scheduler import StepScheduler

__all__ = [
    "MONOTONIC",
    "Clock",
    "ComputeBudget",
    "ComputeLease",
    "SchedulerOptions",
    "StepScheduler",
]
