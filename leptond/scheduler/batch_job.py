"""One request on its way through a model that answers in whole calls.

    waiting ──rows──▶ in a run ──all rows done──▶ over
       ▲                 │
       └──rows are left──┘      a request with many rows waits and runs at once

Made by `batch_admission` on the caller's thread; from then on the worker's alone, except `sink`'s
reader side.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any

from leptond.backend import BatchRow, EmittedChunk
from leptond.errors import BackendFault
from leptond.scheduler.answer import AnswerText
from leptond.scheduler.batch_plan import length_bucket, prompt_bucket
from leptond.scheduler.batch_request import BatchAnswer, BatchRequest, BatchSummary
from leptond.scheduler.tenant import TenantAccount
from leptond.streaming import ResponseSink
from leptond.text import Tokenizer
from leptond.types import (
    FinishReason,
    GenerationRequest,
    GenerationSummary,
    Phase,
    PhaseName,
    RequestProgress,
    TokenChunk,
    TokenLogprob,
    Usage,
)

__all__ = ["BatchJob", "BatchTask", "GenerationJob", "ItemsJob"]


class BatchTask:
    """One row of a job.

    Attributes:
        index: of its item in the request.
        has_sent: something of its answer went out: it cannot be run again.
        is_done: it needs the engine no more.
    """

    __slots__ = ("bucket", "cost_tokens", "has_sent", "index", "is_done", "job", "row")

    def __init__(
        self, job: BatchJob, index: int, row: BatchRow, cost_tokens: int, bucket: int
    ) -> None:
        self.job = job
        self.index = index
        self.row = row
        self.cost_tokens = cost_tokens
        self.bucket = bucket
        self.has_sent = False
        self.is_done = False

    @property
    def options(self) -> Mapping[str, Any]:
        """Rows of equal options share a run."""
        return self.row.options


class BatchJob(ABC):
    """A request that was admitted.

    Args:
        arrival: when it was submitted, monotonic seconds.
        due: its place in the order of its tenant, see `leptond.scheduler.queue`.
        priority: the request's own, bounded.

    Attributes:
        account: its tenant's; set when the queue takes it in.
        pending: rows that wait, in the caller's order; it is in the queue while there are any.
        num_tokens: what those cost.
        num_open: rows that are not done.
        is_over: its sink was ended.
        started: when its first row got into a run; None before.
    """

    account: TenantAccount

    def __init__(
        self,
        request: BatchRequest | GenerationRequest,
        sink: ResponseSink[Any, Any],
        *,
        arrival: float,
        due: float,
        priority: int,
    ) -> None:
        self.id = request.id
        self.tenant = request.tenant
        self.sink = sink
        self.arrival = arrival
        self.due = due
        self.priority = priority
        self.deadline = math.inf if request.deadline is None else request.deadline
        self.pending: deque[BatchTask] = deque()
        self.num_tokens = 0
        self.num_open = 0
        self.is_over = False
        self.started: float | None = None
        self._phases: list[Phase] = []
        self._is_closed = False
        self._phase = PhaseName.QUEUE
        self._phase_start = arrival

    @property
    def is_ready(self) -> bool:
        """Whether its reader keeps up with what was answered."""
        return self.sink.has_room

    @property
    def may_wait(self) -> bool:
        """Whether it may be found in the queue: it has rows to run, and a reader."""
        return bool(self.pending) and not self.is_over

    def start(self, now: float) -> None:
        """Note that a row of it gets into a run."""
        if self.started is None:
            self.started = now
            self._enter(PhaseName.PREFILL, now)

    def take(self, tasks: set[BatchTask]) -> None:
        """Take rows from those that wait. It is not in the queue meanwhile."""
        self.pending = deque(task for task in self.pending if task not in tasks)
        self.num_tokens = sum(task.cost_tokens for task in self.pending)

    def close(self, task: BatchTask) -> None:
        """Note that a row needs the engine no more."""
        task.is_done = True
        self.num_open -= 1

    @abstractmethod
    def accept(self, task: BatchTask, chunk: EmittedChunk, now: float) -> int:
        """Hand a chunk to the reader, and `close` the row when it is the last; number of tokens."""

    def progress(self, now: float) -> RequestProgress:
        """How far it is. Thread: any; what it says may mix two neighbouring moments."""
        phases = tuple(self._phases)
        if not self._is_closed:
            phases = (*phases, Phase(self._phase, self._phase_start, now))
        return RequestProgress(phases, self._usage())

    @abstractmethod
    def summarize(self, now: float) -> Any:
        """End the last phase at `now` and say how it all went. Call it once.

        Asked of a job with open rows, it was cancelled.
        """

    @abstractmethod
    def _usage(self) -> Usage:
        """Tokens so far."""

    def _add(self, row: BatchRow, cost_tokens: int, bucket: int) -> None:
        self.pending.append(BatchTask(self, len(self.pending), row, cost_tokens, bucket))
        self.num_tokens += cost_tokens
        self.num_open += 1

    def _begin_decode(self, now: float) -> None:
        if self._phase is PhaseName.PREFILL:
            self._enter(PhaseName.DECODE, now)

    def _enter(self, phase: PhaseName, now: float) -> None:
        self._end_phase(now)
        self._phase = phase
        self._phase_start = now

    def _end_phase(self, now: float) -> tuple[Phase, ...]:
        self._phases.append(Phase(self._phase, self._phase_start, now))
        return tuple(self._phases)

    def _close_phases(self, now: float) -> tuple[Phase, ...]:
        phases = self._end_phase(now)
        self._is_closed = True
        return phases


class ItemsJob(BatchJob):
    """Inputs whose answers go out as the engine gives them."""

    def __init__(
        self,
        request: BatchRequest,
        sink: ResponseSink[BatchAnswer, BatchSummary],
        *,
        arrival: float,
        due: float,
        priority: int,
    ) -> None:
        super().__init__(request, sink, arrival=arrival, due=due, priority=priority)
        for item in request.items:
            self._add(item.row, item.cost_tokens, length_bucket(item.cost_tokens))
        self._num_input_tokens = sum(len(item.row.token_ids) for item in request.items)
        self._num_answer_tokens = 0

    def accept(self, task: BatchTask, chunk: EmittedChunk, now: float) -> int:
        """See `BatchJob.accept`."""
        num_tokens = len(chunk.token_ids)
        if not chunk.is_final:
            self._begin_decode(now)
        task.has_sent = True
        self._num_answer_tokens += num_tokens
        self.sink.push(BatchAnswer(task.index, chunk))
        if chunk.is_final:
            self.close(task)
        return num_tokens

    def summarize(self, now: float) -> BatchSummary:
        """See `BatchJob.summarize`."""
        return BatchSummary(self._usage(), self._close_phases(now))

    def _usage(self) -> Usage:
        return Usage(self._num_input_tokens, self._num_answer_tokens)


class GenerationJob(BatchJob):
    """One text that the engine generates in a whole call, token by token.

    Args:
        row: its options allow at least `max_tokens` tokens.
        max_tokens: most tokens of the answer: the request's own bound, cut to the context.
        tokenizer: None leaves every chunk's text empty.
    """

    def __init__(
        self,
        request: GenerationRequest,
        sink: ResponseSink[TokenChunk, GenerationSummary],
        row: BatchRow,
        tokenizer: Tokenizer | None,
        *,
        max_tokens: int,
        arrival: float,
        due: float,
        priority: int,
    ) -> None:
        super().__init__(request, sink, arrival=arrival, due=due, priority=priority)
        num_prompt_tokens = len(request.prompt_ids)
        self._add(row, num_prompt_tokens, prompt_bucket(num_prompt_tokens))
        self._num_prompt_tokens = num_prompt_tokens
        self._wants_logprobs = request.num_top_logprobs is not None
        self._tokenizer = tokenizer
        self._answer = AnswerText(request, tokenizer, max_tokens=max_tokens)

    def accept(self, task: BatchTask, chunk: EmittedChunk, now: float) -> int:
        """See `BatchJob.accept`."""
        answer = self._answer
        num_before = answer.num_sampled
        for place, token_id in enumerate(chunk.token_ids):
            taken = answer.take(token_id, self._logprobs(chunk, place))
            self._begin_decode(now)
            task.has_sent = True
            self.sink.push(taken)
            if answer.finish_reason is not None:
                break
        if chunk.is_final and answer.finish_reason is None and (rest := answer.end()):
            self.sink.push(TokenChunk((), rest))
        if answer.finish_reason is not None:
            self.close(task)
        return answer.num_sampled - num_before

    def summarize(self, now: float) -> GenerationSummary:
        """See `BatchJob.summarize`."""
        answer = self._answer
        return GenerationSummary(
            answer.finish_reason or FinishReason.CANCELLED,
            self._usage(),
            self._close_phases(now),
            answer.matched_stop,
        )

    def _usage(self) -> Usage:
        return Usage(self._num_prompt_tokens, self._answer.num_sampled)

    def _logprobs(self, chunk: EmittedChunk, place: int) -> tuple[TokenLogprob, ...]:
        if not self._wants_logprobs or self._tokenizer is None:
            return ()
        if len(chunk.scores) != len(chunk.token_ids):
            raise BackendFault("the engine gave a token without its log-probability")
        token_id = chunk.token_ids[place]
        token = self._tokenizer.token_bytes(token_id)
        return (TokenLogprob(token_id, chunk.scores[place], token),)
