"""Admission, queues, batch planning and worker threads; one scheduler per loaded model."""

from __future__ import annotations

from leptond.scheduler.batch_request import BatchAnswer, BatchItem, BatchRequest, BatchSummary
from leptond.scheduler.batch_scheduler import BatchScheduler
from leptond.scheduler.clock import MONOTONIC, Clock
from leptond.scheduler.compute import ComputeBudget, ComputeLease
from leptond.scheduler.options import SchedulerOptions
from leptond.scheduler.scheduler import StepScheduler

__all__ = [
    "MONOTONIC",
    "BatchAnswer",
    "BatchItem",
    "BatchRequest",
    "BatchScheduler",
    "BatchSummary",
    "Clock",
    "ComputeBudget",
    "ComputeLease",
    "SchedulerOptions",
    "StepScheduler",
]
