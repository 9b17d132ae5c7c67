"""All that a plug-in with a decode loop has to pass."""

from __future__ import annotations

from leptond.backend.conformance.step_answers import StepAnswers
from leptond.backend.conformance.step_picks import StepPicks
from leptond.backend.conformance.step_requests import StepRequests
from leptond.backend.conformance.step_slots import StepSlots

__all__ = ["StepSessionConformance"]


class StepSessionConformance(StepSlots, StepAnswers, StepPicks, StepRequests):
    """The suite for a `StepSession`; see `StepSuite` for what it may be told."""
