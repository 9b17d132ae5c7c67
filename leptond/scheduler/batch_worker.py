"""One run after another: drop who left, plan, run the engine, hand out what it emits.

Everything here happens on the model's worker thread, which `hosting` runs, `interrupt_abandoned`
and `halt` excepted; a test may call `advance` itself, under a clock of its own.

I1  A job is waiting in `admission`, or has rows in the run, or both, or is over; its sink is ended
    exactly when it is over.
I2  A row whose caller is gone is not put into a run, and ends at its next chunk; when every row of
    a run has ended, the engine is interrupted.
I3  An engine fault ends only the requests that bring it about: after one, each row that has sent
    nothing is run again alone, once.
I4  Between two chunks whoever waits for the cores has them first. A run without chunks in between
    is no longer than a turn of the others who use the cores, as far as its pace is known.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from leptond.backend import BatchSession, EmittedChunk
from leptond.errors import BackendFault, InvalidRequest, LeptondError
from leptond.scheduler.batch_admission import BatchAdmission
from leptond.scheduler.batch_endings import BatchEndings
from leptond.scheduler.batch_job import BatchTask
from leptond.scheduler.batch_limits import BatchLimits
from leptond.scheduler.batch_plan import BatchBounds, plan_batch
from leptond.scheduler.clock import Clock
from leptond.scheduler.compute import ComputeBudget, ComputeLease
from leptond.scheduler.estimate import PaceEstimate, RateMeter

__all__ = ["BatchWorker"]

logger = logging.getLogger(__name__)

_LOOKAHEAD = 8
"""Rows that the plan looks at, for each that a run has room for."""

_TURN_S = 0.001
"""Chunks closer together were computed together: between them nobody waits for the cores."""


class BatchWorker:
    """Runs the rows of one session.

    Args:
        session: freshly opened.
        flush: makes what was put into sinks visible to their readers.
    """

    def __init__(
        self,
        session: BatchSession,
        admission: BatchAdmission,
        *,
        limits: BatchLimits,
        compute: ComputeBudget,
        clock: Clock,
        pace: PaceEstimate,
        flush: Callable[[], None],
    ) -> None:
        self._name = limits.name
        self._session = session
        self._admission = admission
        self._limits = limits
        self._compute = compute
        self._clock = clock
        self._pace = pace
        self._flush = flush
        self._endings = BatchEndings(limits.name, admission, pace)
        self._taken: Sequence[BatchTask] = ()
        self._lock = threading.Lock()  # held while the engine's call changes, or is interrupted
        self._called: Sequence[BatchTask] = ()
        self._is_halted = False
        self.sampled = RateMeter()
        admission.on_ring = self.interrupt_abandoned

    @property
    def next_deadline(self) -> float:
        """When the first waiting job expires; infinity when none does."""
        return self._admission.next_deadline

    def advance(self, *, has_news: bool = True) -> bool:
        """Make one run. False when there is nothing to run: wait for news or a deadline.

        Args:
            has_news: what `BatchAdmission.begin_round` returned for this round.

        Raises:
            BackendCrashed: the session is dead.
        """
        self._drop_gone(self._clock.monotonic(), has_news=has_news)
        num_rows = _LOOKAHEAD * self._limits.bounds.max_rows
        tasks = plan_batch(itertools.islice(self._waiting_rows(), num_rows), self._bounds())
        if not tasks:
            return False
        self._take(tasks)
        try:
            self._call(tasks)
        except (BackendFault, InvalidRequest) as fault:
            self._call_singly(tasks, fault)
        if not self._is_halted:  # else what was not answered is still to be told
            self._taken = ()
        self._flush()
        return True

    def interrupt_abandoned(self) -> None:
        """End the engine's call when nobody waits for any row of it. Thread: any."""
        with self._lock:
            if self._called and all(
                _is_ended(task) or task.job.sink.is_cancelled for task in self._called
            ):
                self._session.interrupt()

    def halt(self) -> None:
        """End the engine's call as soon as it can: the worker is to stop. Thread: any."""
        with self._lock:
            self._is_halted = True
            if self._called:
                self._session.interrupt()

    def fail_all(self, make_error: Callable[[], LeptondError]) -> None:
        """End every job, waiting or running, with an error of its own.

        Never raises: a sink that breaks is logged, and the next one has its turn.
        """
        running = [task.job for task in self._taken]
        self._taken = ()
        for job in dict.fromkeys([*running, *self._admission.take_all()]):
            if job.is_over:
                continue
            job.is_over = True
            self._admission.leave(job)
            try:
                job.sink.fail(make_error())
            except Exception:
                logger.exception("sink broken model=%s request=%s", self._name, job.id)
        try:
            self._flush()
        except Exception:
            logger.exception("flush broken model=%s", self._name)

    def check_integrity(self) -> None:
        """Raise `InvariantViolation` when the queue's books do not add up. When idle."""
        self._admission.check_integrity()

    # ------------------------------------------------------------------ before the engine runs
    def _drop_gone(self, now: float, *, has_news: bool) -> None:
        num_ended = self._endings.num_ended
        for job in self._admission.find_gone(now, has_news=has_news):
            self._endings.end_gone(job, now)
        if self._endings.num_ended > num_ended:
            self._flush()

    def _bounds(self) -> BatchBounds:
        """What the next run may hold: less while it would hold others up."""
        bounds = self._limits.bounds
        turn_s = math.inf if self._limits.gives_way else self._compute.turn_of_others_s(self._name)
        token_s = self._pace.token_s
        if turn_s == math.inf or token_s == 0.0:
            return bounds
        budget = max(1, int(turn_s / token_s))
        return replace(bounds, token_budget=min(bounds.token_budget, budget))

    def _waiting_rows(self) -> Iterator[BatchTask]:
        """Rows that wait, in the order of their requests, most urgent first."""
        for job in self._admission.candidates(_LOOKAHEAD * self._limits.bounds.max_rows):
            yield from job.pending

    def _take(self, tasks: Sequence[BatchTask]) -> None:
        """Take rows out of the queue, for the run."""
        self._taken = tasks
        taken = set(tasks)
        now = self._clock.monotonic()
        for job in dict.fromkeys(task.job for task in tasks):
            self._admission.take(job)
            job.take(taken)
            job.start(now)
            if job.pending:
                self._admission.put_back(job)

    # ------------------------------------------------------------------ the engine
    def _call(self, tasks: Sequence[BatchTask]) -> None:
        """Run the engine once.

        Raises:
            BackendFault, InvalidRequest: rows that are not ended may be run again.
        """
        cost_tokens = sum(task.cost_tokens for task in tasks)
        priority = max(task.job.priority for task in tasks)
        with self._lock:
            self._called = tasks
        self._admission.num_prefill_tokens = cost_tokens
        try:
            with self._compute.lease(self._name, priority) as lease:
                call = _Call(tasks, lease, self._clock.monotonic())
                # Whoever left while the cores were waited for has interrupted nothing.
                if all(self._is_settled(task, call.start) for task in tasks):
                    return
                self._session.run([task.row for task in tasks], functools.partial(self._emit, call))
        finally:
            self._admission.num_prefill_tokens = 0
            with self._lock:
                self._called = ()
        now = self._clock.monotonic()
        answered = now if call.first_chunk is None else call.first_chunk
        self._pace.record_run(cost_tokens, 0, answered - call.start)
        for task in tasks:
            task.job.account.served_tokens += task.cost_tokens
            if not self._is_settled(task, now):
                self._fail(task, BackendFault("the engine ended its call without an answer"))

    def _call_singly(
        self, tasks: Sequence[BatchTask], fault: BackendFault | InvalidRequest
    ) -> None:
        """After a fault: give each row that has sent nothing one more chance, alone."""
        logger.warning("engine fault model=%s rows=%d", self._name, len(tasks), exc_info=fault)
        for task in tasks:
            if self._is_settled(task, self._clock.monotonic()):
                continue
            if task.has_sent:
                self._fail(task, fault)
                continue
            try:
                self._call([task])
            except (BackendFault, InvalidRequest) as again:
                if not self._is_settled(task, self._clock.monotonic()):
                    self._fail(task, again)
            self._flush()

    def _emit(self, call: _Call, index: int, chunk: EmittedChunk) -> bool:
        """Hand out one chunk. Called by the engine, on this thread."""
        now = self._clock.monotonic()
        if call.first_chunk is None:
            call.first_chunk = now
        task = call.tasks[index]
        if not self._is_settled(task, now):
            self._accept(task, chunk, now)
        self._flush()
        goes_on = not (self._is_halted or _is_ended(task))
        is_vain = not chunk.is_final and all(map(_is_ended, call.tasks))
        if self._is_halted or is_vain:
            self._session.interrupt()
        self._drop_gone(now, has_news=self._admission.begin_round())
        if now - call.turn >= _TURN_S:
            call.lease.give_way()
            call.turn = self._clock.monotonic()
        return goes_on

    def _accept(self, task: BatchTask, chunk: EmittedChunk, now: float) -> None:
        job = task.job
        try:
            num_tokens = job.accept(task, chunk, now)
        except Exception as error:
            self._endings.fail_answer(job, error, now)
            return
        self.sampled.add(num_tokens, now)
        if job.num_open == 0:
            self._endings.finish(job, now)

    def _is_settled(self, task: BatchTask, now: float) -> bool:
        """Whether nothing is to be done for a row; its job is ended if its caller is gone."""
        return self._is_halted or task.is_done or self._endings.end_gone(task.job, now)

    def _fail(self, task: BatchTask, error: LeptondError) -> None:
        """End a row's job with an error of its own, which says which item it was."""
        details = {**error.details, "index": str(task.index)}
        told = type(error)(error.message, field=error.field, details=details)
        told.__cause__ = error
        self._endings.fail(task.job, told, self._clock.monotonic())


@dataclass(slots=True)
class _Call:
    """One call of the engine.

    Attributes:
        start: when it had the cores.
        turn: since when it has them without a break.
        first_chunk: when it answered first.
    """

    tasks: Sequence[BatchTask]
    lease: ComputeLease
    start: float
    turn: float = field(init=False)
    first_chunk: float | None = None

    def __post_init__(self) -> None:
        self.turn = self.start


def _is_ended(task: BatchTask) -> bool:
    """Whether nobody waits for the row any more, or it was answered."""
    return task.is_done or task.job.is_over
