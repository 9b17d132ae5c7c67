"""How a request to a model of whole calls ends: the books are closed, its reader is told.

I1  A job is taken from the queue before its sink is told, and told once: `is_over` says so.

Thread: the worker.
"""

from __future__ import annotations

import logging

from leptond.errors import DeadlineExpired, InvariantViolation, LeptondError
from leptond.scheduler.batch_admission import BatchAdmission
from leptond.scheduler.batch_job import BatchJob
from leptond.scheduler.estimate import PaceEstimate

__all__ = ["BatchEndings"]

logger = logging.getLogger(__name__)


class BatchEndings:
    """Ends jobs, whether they wait, run or both.

    Attributes:
        num_ended: so far; whoever flushes sinks compares.
    """

    def __init__(self, name: str, admission: BatchAdmission, pace: PaceEstimate) -> None:
        self._name = name
        self._admission = admission
        self._pace = pace
        self.num_ended = 0

    def end_gone(self, job: BatchJob, now: float) -> bool:
        """End it if nobody waits for it any more; whether it is over, then or before."""
        if not job.is_over:
            if job.sink.is_cancelled:
                self.finish(job, now)
            elif job.deadline <= now:
                self.fail(job, DeadlineExpired("the deadline passed before the answer ended"), now)
        return job.is_over

    def finish(self, job: BatchJob, now: float) -> None:
        """End it with what was achieved by `now`; a cancelled one too."""
        self._release(job, now)
        job.sink.finish(job.summarize(now))

    def fail(self, job: BatchJob, error: LeptondError, now: float) -> None:
        """End it with an error."""
        self._release(job, now)
        job.sink.fail(error)

    def fail_answer(self, job: BatchJob, error: Exception, now: float) -> None:
        """End it because its text or its sink broke: a refusal in words, or a bug of ours."""
        if not isinstance(error, LeptondError):
            logger.error("answer broken model=%s request=%s", self._name, job.id, exc_info=error)
            bug = InvariantViolation(f"{type(error).__name__} in an answer")
            bug.__cause__ = error
            error = bug
        self.fail(job, error, now)

    def _release(self, job: BatchJob, now: float) -> None:
        self.num_ended += 1
        if job.pending:
            self._admission.take(job)
        job.is_over = True
        if job.started is not None:
            self._pace.record_release(now - job.started)
        self._admission.leave(job)
