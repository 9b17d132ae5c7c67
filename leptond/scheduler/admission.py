"""The front door of one model: checks, bounds and queues requests, and wakes the worker.

Callers submit on any thread; the worker takes sequences out and hands them back. One lock guards
the queue; it is held for microseconds, so the event loop may submit directly.

I1  At most `max_running + max_queued` sequences are inside: waiting or running.
I2  Once closed, nothing enters; whoever closed it has seen everything that did.
I3  What happens after `begin_round` ends the next `wait`: a submission, a cancel, a reader's room.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from leptond.errors import DeadlineExpired, LeptondError, QueueFull
from leptond.scheduler.clock import Clock
from leptond.scheduler.estimate import PaceEstimate
from leptond.scheduler.limits import ModelLimits
from leptond.scheduler.options import SchedulerOptions
from leptond.scheduler.queue import FairQueue, Queued, bounded_priority, due_time
from leptond.scheduler.sequence import Sequence
from leptond.streaming import ResponseSink
from leptond.types import (
    GenerationRequest,
    GenerationSummary,
    RequestProgress,
    ScoringRequest,
    TokenChunk,
)

__all__ = ["Admission", "Admitted", "FrontDoor"]


class Admitted(Queued, Protocol):
    """What goes in: a request with a reader and a deadline."""

    @property
    def arrival(self) -> float:
        """When it was submitted, monotonic seconds."""
        ...

    @property
    def deadline(self) -> float:
        """When it must be over; infinity without one."""
        ...

    @property
    def sink(self) -> ResponseSink[Any, Any]:
        """Where its answer goes."""
        ...


AdmittedT = TypeVar("AdmittedT", bound=Admitted)


class FrontDoor(Generic[AdmittedT]):
    """Takes requests in for one worker.

    Args:
        name: the model's, for messages.
        max_running: requests that run at once.
        pace: what the worker has measured, for estimates.

    Attributes:
        num_prefill_tokens: prompt tokens that running sequences still have to be computed; the
            worker keeps it up to date.
    """

    def __init__(
        self,
        name: str,
        max_running: int,
        options: SchedulerOptions,
        *,
        clock: Clock,
        pace: PaceEstimate,
    ) -> None:
        self._name = name
        self._max_running = max_running
        self._options = options
        self._clock = clock
        self._pace = pace
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._queue: FairQueue[AdmittedT] = FairQueue()
        self._next_deadline = math.inf
        self._has_news = False
        self._refusal: Callable[[], LeptondError] | None = None
        self.num_prefill_tokens = 0

    # ------------------------------------------------------------------ the callers' side
    def place(self, deadline: float | None, priority: int) -> tuple[float, float, int]:
        """Say when a request arrives, when it is due, and with which priority.

        Raises:
            DeadlineExpired: it came too late.
        """
        now = self._clock.monotonic()
        latest = math.inf if deadline is None else deadline
        if latest <= now:
            raise DeadlineExpired("the deadline had passed when the request was submitted")
        priority = bounded_priority(self._options, priority)
        return now, due_time(self._options, now, latest, priority), priority

    def enter(self, sequence: AdmittedT) -> None:
        """Let it wait for its turn, or refuse it. See `StepScheduler.submit`."""
        with self._lock:
            if self._refusal is not None:
                raise self._refusal()
            self._check_bound()
            if sequence.deadline < math.inf:
                self._check_deadline(sequence)
                self._next_deadline = min(self._next_deadline, sequence.deadline)
            self._queue.enter(sequence)
            sequence.sink.attach(self.ring)
            self._has_news = True
            self._news.notify()

    def require_room(self) -> None:
        """Raise what `enter` would raise of a request whatever it asks: full, closed."""
        with self._lock:
            if self._refusal is not None:
                raise self._refusal()
            self._check_bound()

    def ring(self) -> None:
        """Have the worker look at everything again: a reader left, or has room."""
        with self._lock:
            self._has_news = True
            self._news.notify()

    def close(self, refusal: Callable[[], LeptondError]) -> None:
        """Let nothing in any more; `refusal` makes the error. The first of several calls counts."""
        with self._lock:
            if self._refusal is None:
                self._refusal = refusal
            self._has_news = True
            self._news.notify()

    @property
    def num_waiting(self) -> int:
        """Sequences without a slot."""
        return len(self._queue)

    @property
    def num_running(self) -> int:
        """Sequences with a slot."""
        return self._queue.num_active - len(self._queue)

    @property
    def num_waiting_tokens(self) -> int:
        """Tokens that they have to be computed."""
        return self._queue.num_tokens

    def wait_until_empty(self, timeout_s: float | None) -> bool:
        """Wait until nothing is inside; False when it took longer."""
        with self._lock:
            return self._emptied.wait_for(lambda: self._queue.num_active == 0, timeout_s)

    # ------------------------------------------------------------------ the worker's side
    def begin_round(self) -> bool:
        """Begin to look at everything; what happens from here on is news for the next round.

        Returns whether there was news since the last one.
        """
        if not self._has_news:
            return False
        with self._lock:
            self._has_news = False
        return True

    def wait(self, until: float) -> None:
        """Wait for news, at the latest until the monotonic time `until`."""
        with self._lock:
            if not self._has_news:
                timeout_s = None if until == math.inf else until - self._clock.monotonic()
                if timeout_s is None or timeout_s > 0:
                    self._news.wait(timeout_s)

    def candidates(self, limit: int) -> list[AdmittedT]:
        """The next `limit` sequences to get a slot, in order; they go on waiting."""
        if not len(self._queue):
            return []
        with self._lock:
            return self._queue.candidates(limit)

    def take(self, sequence: AdmittedT) -> None:
        """End the waiting of a sequence: it has a slot, or it is about to leave."""
        with self._lock:
            self._queue.remove(sequence)

    def put_back(self, sequence: AdmittedT) -> None:
        """Let a sequence wait again that lost its slot."""
        with self._lock:
            self._queue.wait(sequence)
            self._next_deadline = min(self._next_deadline, sequence.deadline)

    def leave(self, sequence: AdmittedT) -> None:
        """Forget a sequence that neither waits nor runs any more."""
        with self._lock:
            self._queue.leave(sequence)
            if self._queue.num_active == 0:
                self._emptied.notify_all()

    def find_gone(self, now: float, *, has_news: bool) -> list[AdmittedT]:
        """Name what waits in vain: its reader left, or its deadline passed.

        Looks only when there is news or a deadline is over. The caller ends what is named.
        """
        if not has_news and now < self._next_deadline:
            return []
        with self._lock:
            gone = [s for s in self._queue if s.sink.is_cancelled or s.deadline <= now]
            rest = (s.deadline for s in self._queue if s.deadline > now)
            self._next_deadline = min(rest, default=math.inf)
        return gone

    def take_all(self) -> list[AdmittedT]:
        """Take out everything that waits."""
        with self._lock:
            waiting = list(self._queue)
            for sequence in waiting:
                self._queue.remove(sequence)
        return waiting

    @property
    def next_deadline(self) -> float:
        """When the first waiting sequence expires; infinity when none does."""
        return self._next_deadline

    def check_integrity(self) -> None:
        """Raise `InvariantViolation` when the queue and the counts disagree."""
        with self._lock:
            self._queue.check_integrity()

    # ------------------------------------------------------------------ what is refused
    def _check_bound(self) -> None:
        num_inside = self._queue.num_active
        if num_inside >= self._max_running + self._options.max_queued:
            raise QueueFull(
                f"{num_inside} requests run or wait for model {self._name}, as many as may",
                retry_after_s=self._pace.retry_after_s(self._max_running),
            )

    def _check_deadline(self, sequence: AdmittedT) -> None:
        """Refuse what cannot have its first token in time, by what was measured so far."""
        needed_s = self._first_token_s(sequence)
        left_s = sequence.deadline - sequence.arrival
        if needed_s > left_s:
            raise DeadlineExpired(
                f"the first token would take about {needed_s:.2f} s, the deadline is in "
                f"{left_s:.2f} s",
                details={"estimated_first_token_s": f"{needed_s:.3f}"},
            )

    def _first_token_s(self, sequence: AdmittedT) -> float:
        """Time to the first token: those ahead get their slots and prompts done, then it its own.

        While it waits for a slot the prompts ahead of it are computed; so the longer of the two
        counts, not their sum.
        """
        num_ahead, tokens_ahead = self._queue.ahead_of(
            sequence.tenant, sequence.due, sequence.num_tokens
        )
        is_shared = self.num_running > 0
        options = self._options
        step_tokens = options.prefill_chunk_tokens if is_shared else options.step_token_budget
        num_releases = num_ahead + 1 + self.num_running - self._max_running
        ahead_s = max(
            self._pace.slots_s(num_releases, self._max_running),
            self._pace.prefill_s(
                tokens_ahead + self.num_prefill_tokens,
                step_tokens=step_tokens,
                is_shared=is_shared,
            ),
        )
        own_s = self._pace.prefill_s(
            sequence.num_tokens, step_tokens=step_tokens, is_shared=is_shared
        )
        return ahead_s + own_s


class Admission(FrontDoor[Sequence]):
    """The front door of a model with an open decode loop."""

    def __init__(
        self,
        limits: ModelLimits,
        options: SchedulerOptions,
        *,
        clock: Clock,
        pace: PaceEstimate,
    ) -> None:
        super().__init__(limits.name, limits.max_running, options, clock=clock, pace=pace)
        self._limits = limits

    def submit(
        self, request: GenerationRequest, sink: ResponseSink[TokenChunk, GenerationSummary]
    ) -> Callable[[], RequestProgress]:
        """Check and queue a request. See `StepScheduler.submit`."""
        self._limits.check(request)
        room = self._limits.max_context_tokens - len(request.prompt_ids)
        return self._admit(request, sink, min(request.stop.max_tokens, room))

    def submit_scoring(
        self, request: ScoringRequest, sink: ResponseSink[TokenChunk, GenerationSummary]
    ) -> Callable[[], RequestProgress]:
        """Check and queue a text to score. See `StepScheduler.submit_scoring`."""
        self._limits.check_scoring(request)
        return self._admit(request, sink, max_tokens=0)

    def _admit(
        self,
        request: GenerationRequest | ScoringRequest,
        sink: ResponseSink[TokenChunk, GenerationSummary],
        max_tokens: int,
    ) -> Callable[[], RequestProgress]:
        arrival, due, priority = self.place(request.deadline, request.priority)
        sequence = Sequence(
            request,
            sink,
            arrival=arrival,
            due=due,
            priority=priority,
            max_tokens=max_tokens,
        )
        self.enter(sequence)
        return lambda: sequence.progress(self._clock.monotonic())
