"""How a sequence ends: its slot goes back, the books are closed, its reader is told.

I1  Whoever ends a sequence ends its sink, even when the engine breaks while its slot is closed.
I2  A sequence is taken from slot table or queue before its sink is told, so it is told once.

Thread: the worker.
"""

from __future__ import annotations

import logging

from leptond.errors import InvariantViolation, LeptondError
from leptond.scheduler.admission import Admission
from leptond.scheduler.clock import Clock
from leptond.scheduler.estimate import PaceEstimate
from leptond.scheduler.sequence import Sequence
from leptond.scheduler.slots import SlotTable
from leptond.types import FinishReason

__all__ = ["Endings"]

logger = logging.getLogger(__name__)


class Endings:
    """Ends sequences, waiting or running.

    Attributes:
        num_ended: so far; whoever flushes sinks compares.
    """

    def __init__(
        self, name: str, slots: SlotTable, admission: Admission, pace: PaceEstimate, clock: Clock
    ) -> None:
        self._name = name
        self._slots = slots
        self._admission = admission
        self._pace = pace
        self._clock = clock
        self.num_ended = 0

    def finish(self, sequence: Sequence, reason: FinishReason, now: float) -> None:
        """End it with what was achieved by `now`; a cancelled one too."""
        matched = None if sequence.answer is None else sequence.answer.matched_stop
        try:
            self._release(sequence)
        finally:
            sequence.sink.finish(sequence.summarize(reason, now, matched))

    def fail(self, sequence: Sequence, error: LeptondError) -> None:
        """End it with an error."""
        try:
            self._release(sequence)
        finally:
            sequence.sink.fail(error)

    def fail_answer(self, sequence: Sequence, error: Exception) -> None:
        """End it because its sampler or its text broke: a refusal in words, or a bug of ours."""
        if isinstance(error, LeptondError):
            self.fail(sequence, error)
            return
        request_id = sequence.request.id
        logger.error("answer broken model=%s request=%s", self._name, request_id, exc_info=error)
        bug = InvariantViolation(f"{type(error).__name__} in an answer")
        bug.__cause__ = error
        self.fail(sequence, bug)

    def _release(self, sequence: Sequence) -> None:
        self.num_ended += 1
        try:
            if sequence.slot is None:
                self._admission.take(sequence)
            else:
                self._pace.record_release(self._clock.monotonic() - sequence.slot_since)
                self._slots.close(sequence)
        finally:
            self._admission.leave(sequence)
