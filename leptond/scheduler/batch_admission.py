"""The front door of one model of whole calls."""

from __future__ import annotations

from collections.abc import Callable

from leptond.scheduler.admission import FrontDoor
from leptond.scheduler.batch_job import BatchJob, GenerationJob, ItemsJob
from leptond.scheduler.batch_limits import BatchLimits
from leptond.scheduler.batch_request import BatchAnswer, BatchRequest, BatchSummary
from leptond.scheduler.clock import Clock
from leptond.scheduler.estimate import PaceEstimate
from leptond.scheduler.options import SchedulerOptions
from leptond.streaming import ResponseSink
from leptond.text import Tokenizer
from leptond.types import GenerationRequest, GenerationSummary, RequestProgress, TokenChunk

__all__ = ["BatchAdmission"]


class BatchAdmission(FrontDoor[BatchJob]):
    """Takes requests in for one worker; see `FrontDoor`.

    Args:
        tokenizer: for generated texts; None leaves them empty.

    Attributes:
        on_ring: called besides, on the thread of a reader that left or has room; never blocks.
    """

    def __init__(
        self,
        limits: BatchLimits,
        options: SchedulerOptions,
        tokenizer: Tokenizer | None,
        *,
        clock: Clock,
        pace: PaceEstimate,
    ) -> None:
        super().__init__(limits.name, limits.max_running, options, clock=clock, pace=pace)
        self._limits = limits
        self._tokenizer = tokenizer
        self.on_ring: Callable[[], None] = lambda: None

    def submit(
        self, request: BatchRequest, sink: ResponseSink[BatchAnswer, BatchSummary]
    ) -> Callable[[], RequestProgress]:
        """Check and queue a request. See `BatchScheduler.submit`."""
        self._limits.check_items(request)
        arrival, due, priority = self.place(request.deadline, request.priority)
        return self._admit(ItemsJob(request, sink, arrival=arrival, due=due, priority=priority))

    def submit_generation(
        self, request: GenerationRequest, sink: ResponseSink[TokenChunk, GenerationSummary]
    ) -> Callable[[], RequestProgress]:
        """Check and queue a text to generate. See `BatchScheduler.submit_generation`."""
        self._limits.check_generation(request)
        arrival, due, priority = self.place(request.deadline, request.priority)
        room = self._limits.answer_room(len(request.prompt_ids))
        max_tokens = min(request.stop.max_tokens, room)
        return self._admit(
            GenerationJob(
                request,
                sink,
                self._limits.generation_row(request, max_tokens),
                self._tokenizer,
                max_tokens=max_tokens,
                arrival=arrival,
                due=due,
                priority=priority,
            )
        )

    def _admit(self, job: BatchJob) -> Callable[[], RequestProgress]:
        self.enter(job)
        return lambda: job.progress(self._clock.monotonic())

    def ring(self) -> None:
        """See `FrontDoor.ring`."""
        super().ring()
        self.on_ring()
