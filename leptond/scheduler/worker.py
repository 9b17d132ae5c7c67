"""One step after another: drop who left, plan, run the engine, hand out the tokens.

Everything here happens on the model's worker thread, which `scheduler` runs; a test may call
`advance` itself, under a clock of its own.

I1  A sequence is waiting in `admission`, or running in the slot table, or gone; its sink is ended
    exactly when it goes.
I2  A cancelled or expired sequence gives its slot back before the next plan.
I3  An engine fault ends only the rows that bring it about: after one, each row of the run is run
    again alone, once, since every slot is as it was. A fault in one answer's text ends that answer
    only.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import numpy as np

from leptond.backend import StepResult, StepRow, StepSession
from leptond.errors import (
    BackendFault,
    DeadlineExpired,
    InvalidRequest,
    LeptondError,
    MemoryBudgetExceeded,
)
from leptond.scheduler.admission import Admission
from leptond.scheduler.answer import AnswerScorer, AnswerWriter
from leptond.scheduler.clock import Clock
from leptond.scheduler.compute import ComputeBudget
from leptond.scheduler.endings import Endings
from leptond.scheduler.estimate import PaceEstimate, RateMeter
from leptond.scheduler.limits import ModelLimits
from leptond.scheduler.policy import Run, Snapshot, plan
from leptond.scheduler.sequence import Sequence
from leptond.scheduler.slots import SlotTable
from leptond.text import Tokenizer
from leptond.types import FinishReason, PhaseName, ScoringRequest

__all__ = ["StepWorker"]

logger = logging.getLogger(__name__)

Rows = list[tuple[Sequence, int]]
"""Sequences of one engine run, each with its number of new tokens."""


class StepWorker:
    """Runs the sequences of one session.

    Args:
        session: freshly opened.
        flush: makes what was put into sinks visible to their readers.
    """

    def __init__(
        self,
        session: StepSession,
        admission: Admission,
        *,
        limits: ModelLimits,
        tokenizer: Tokenizer | None,
        compute: ComputeBudget,
        clock: Clock,
        pace: PaceEstimate,
        flush: Callable[[], None],
    ) -> None:
        self._name = limits.name
        self._session = session
        self._admission = admission
        self._limits = limits
        self._tokenizer = tokenizer
        self._compute = compute
        self._clock = clock
        self._pace = pace
        self._flush = flush
        self._slots = SlotTable(session, limits.max_running)
        self._endings = Endings(limits.name, self._slots, admission, pace, clock)
        self.sampled = RateMeter()

    @property
    def kv_tokens(self) -> int:
        """Tokens in all slots. Thread: any."""
        return self._slots.kv_tokens

    @property
    def next_deadline(self) -> float:
        """When the first sequence expires, waiting or running; infinity when none does."""
        running = [sequence.deadline for sequence in self._slots.running]
        return min(self._admission.next_deadline, *running, math.inf)

    def advance(self, *, has_news: bool = True) -> bool:
        """Make one step. False when there is nothing to run: wait for news or a deadline.

        Args:
            has_news: what `Admission.begin_round` returned for this round.

        Raises:
            BackendCrashed: the session is dead.
        """
        now = self._clock.monotonic()
        num_ended = self._endings.num_ended
        self._drop_gone(now, has_news=has_news)
        decided = plan(self._look())
        for sequence in decided.preempted:
            self._preempt(sequence, now)
        for sequence in decided.admitted:
            self._admit(sequence, now)
        if self._endings.num_ended > num_ended:
            self._flush()
        has_run = False
        for run in decided.runs:
            if self._run(run):
                has_run = True
                self._flush()
        running = self._slots.running
        pending = sum(sequence.num_pending for sequence in running)
        self._admission.num_prefill_tokens = pending - len(running)
        return has_run

    def fail_all(self, make_error: Callable[[], LeptondError]) -> None:
        """End every sequence, waiting or running, with an error of its own.

        Slots are not given back: the session is to be shut down. Never raises: a sink that breaks
        is logged, and the next one has its turn.
        """
        for sequence in [*self._slots.abandon(), *self._admission.take_all()]:
            self._admission.leave(sequence)
            try:
                sequence.sink.fail(make_error())
            except Exception:
                logger.exception("sink broken model=%s request=%s", self._name, sequence.request.id)
        try:
            self._flush()
        except Exception:
            logger.exception("flush broken model=%s", self._name)

    def check_integrity(self) -> None:
        """Raise `InvariantViolation` when slots, queue and session disagree. When idle."""
        self._slots.check_integrity()
        self._admission.check_integrity()

    # ------------------------------------------------------------------ before the engine runs
    def _drop_gone(self, now: float, *, has_news: bool) -> None:
        gone = self._admission.find_gone(now, has_news=has_news)
        for sequence in self._slots.running:
            if sequence.sink.is_cancelled or sequence.deadline <= now:
                gone.append(sequence)
        for sequence in gone:
            if sequence.sink.is_cancelled:
                self._endings.finish(sequence, FinishReason.CANCELLED, now)
            else:
                self._endings.fail(
                    sequence, DeadlineExpired("the deadline passed before the answer ended")
                )

    def _look(self) -> Snapshot[Sequence]:
        running = self._slots.running
        for sequence in running:
            sequence.is_paused = not sequence.sink.has_room
        num_free = self._slots.num_free
        return Snapshot(
            running=running,
            waiting=self._admission.candidates(num_free) if num_free else (),
            num_free_slots=num_free,
            kv_tokens=self._slots.kv_tokens,
            limits=self._limits.step,
        )

    def _preempt(self, sequence: Sequence, now: float) -> None:
        logger.debug("preempted model=%s request=%s", self._name, sequence.request.id)
        sequence.enter(PhaseName.QUEUE, now)
        try:
            self._slots.close(sequence)
        finally:
            self._admission.put_back(sequence)

    def _admit(self, sequence: Sequence, now: float) -> None:
        try:
            self._slots.open(sequence)
        except MemoryBudgetExceeded as error:
            # Others will give their memory back; without others nothing would change.
            if not self._slots.running:
                self._endings.fail(sequence, error)
            return
        self._admission.take(sequence)
        sequence.slot_since = now
        sequence.is_paused = False
        if sequence.answer is None:
            try:
                sequence.answer = self._make_answer(sequence)
            except Exception as error:
                self._endings.fail_answer(sequence, error)

    def _make_answer(self, sequence: Sequence) -> AnswerWriter | AnswerScorer:
        request = sequence.request
        if isinstance(request, ScoringRequest):
            return AnswerScorer(request, self._tokenizer)
        return AnswerWriter(
            request,
            self._tokenizer,
            max_tokens=sequence.max_tokens,
            vocab_size=self._limits.vocab_size,
        )

    # ------------------------------------------------------------------ the engine
    def _run(self, planned: Run[Sequence]) -> bool:
        """Run the engine once. False when no row of the plan is left."""
        start = self._clock.monotonic()
        rows, step_rows = self._build(planned, start)
        if not rows:
            return False
        priority = max(sequence.priority for sequence, _ in rows)
        try:
            with self._compute.lease(self._name, priority):
                result = self._session.step(step_rows)
        except (BackendFault, InvalidRequest) as fault:
            self._run_singly(rows, step_rows, fault)
            return True
        now = self._clock.monotonic()
        prompts = [num_tokens for _, num_tokens in rows if num_tokens > 1]
        self._pace.record_run(sum(prompts), len(rows) - len(prompts), now - start)
        self._accept(rows, result, now)
        return True

    def _build(self, planned: Run[Sequence], now: float) -> tuple[Rows, list[StepRow]]:
        """Make the engine's rows of what was planned and still holds a slot."""
        rows: Rows = []
        step_rows: list[StepRow] = []
        for sequence, num_tokens in planned:
            # None: its slot was refused, or it failed since the plan was made.
            if sequence.slot is None or sequence.answer is None:
                continue
            if sequence.phase is PhaseName.QUEUE:
                sequence.enter(PhaseName.PREFILL, now)
            first = sequence.num_computed
            last = sequence.answer.bound(first, first + num_tokens)
            num_logits = sequence.answer.num_logits(first, last, len(sequence.token_ids))
            try:
                pick = sequence.answer.pick() if num_logits else None
            except Exception as error:
                self._endings.fail_answer(sequence, error)
                continue
            token_ids = sequence.token_ids[first:last]
            step_rows.append(StepRow(sequence.slot, token_ids, num_logits, pick))
            rows.append((sequence, last - first))
        return rows, step_rows

    def _run_singly(
        self,
        rows: Rows,
        step_rows: list[StepRow],
        fault: BackendFault | InvalidRequest,
    ) -> None:
        """After a fault: give each row one more chance, alone.

        The session promises that the slots are as before the run, and nothing of it was sent.
        """
        logger.warning("engine fault model=%s rows=%d", self._name, len(rows), exc_info=fault)
        for (sequence, num_tokens), step_row in zip(rows, step_rows, strict=True):
            try:
                with self._compute.lease(self._name, sequence.priority):
                    result = self._session.step([step_row])
            except (BackendFault, InvalidRequest) as again:
                self._endings.fail(sequence, again)
            else:
                self._accept([(sequence, num_tokens)], result, self._clock.monotonic())

    def _accept(self, rows: Rows, result: StepResult, now: float) -> None:
        """Hand out what a run has computed. The hot path: a few microseconds a token."""
        likeliest: list[int] = result.candidate_ids[:, 0].tolist()
        is_finite = np.isfinite(result.raw_log_normalizer)
        all_finite = bool(is_finite.all())
        next_line = num_sampled = 0
        for sequence, num_tokens in rows:
            first = sequence.num_computed
            self._slots.advance(sequence, num_tokens)
            sequence.account.served_tokens += num_tokens
            answer = sequence.answer
            if answer is None:
                continue
            known = len(sequence.token_ids)
            num_lines = answer.num_logits(first, first + num_tokens, known)
            if not num_lines:
                continue
            line = next_line
            next_line += num_lines
            if not (all_finite or is_finite[line:next_line].all()):
                self._endings.fail(sequence, BackendFault("the engine's logits are not finite"))
                continue
            try:
                chunk = answer.accept(result, line, likeliest[line], num_lines)
                if not answer.is_given:
                    sequence.token_ids.extend(chunk.token_ids)
                    num_sampled += 1
                if sequence.phase is PhaseName.PREFILL:
                    sequence.enter(PhaseName.DECODE, now)
                sequence.sink.push(chunk)
            except Exception as error:
                self._endings.fail_answer(sequence, error)
                continue
            if answer.finish_reason is not None:
                self._endings.finish(sequence, answer.finish_reason, now)
        self.sampled.add(num_sampled, now)
