"""How likely given tokens are under a model, on engines of either kind.

On the event loop. Used by `Score` and by classification with labels of the caller's own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leptond.backend import BatchRow
from leptond.errors import (
    InvalidRequest,
    LeptondError,
    QueueFull,
    RequestTooLarge,
    UnsupportedCapability,
)
from leptond.models import ServedModel
from leptond.scheduler import BatchItem, BatchRequest, StepScheduler
from leptond.server.batching import BatchCalls, Tensors, collect
from leptond.server.calls import Call
from leptond.server.convert import responses
from leptond.telemetry import InferenceRecord
from leptond.types import Phase, PhaseName, ScoringRequest, Task, TokenLogprob, Usage

__all__ = ["Scorer", "Target", "encode_target"]

_MAX_IN_FLIGHT = 32
"""Texts of one call that are with a step scheduler at once: no call fills its queue."""


@dataclass(frozen=True, slots=True)
class Target:
    """Tokens to score, and what comes before them: at least one token of each.

    Attributes:
        field: the input that it is of, as the caller knows it: `inputs[2]`.
    """

    context_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    field: str


async def encode_target(
    text: str, model: ServedModel, batches: BatchCalls, field: str
) -> tuple[int, ...]:
    """Tokens of a text that the model would write; control tokens in it are plain text.

    Raises:
        InvalidRequest: it is empty.
        RequestTooLarge: it cannot fit.
    """
    tokenizer = model.tokenizer
    tokenizer.check_text_size(text, model.max_context_tokens, field)
    ids = await batches.pool.run(tokenizer.encode, text, parse_special=False, add_bos=False)
    if not ids:
        raise InvalidRequest(f"{field} has no tokens", field=field)
    return tuple(ids)


@dataclass(slots=True)
class Scorer:
    """Scores the targets of one call, and keeps the account of it.

    Attributes:
        operation: for the span.
        times: when the call arrived and when it had its model.
        num_top: alternatives of each token.
        usage: tokens read so far.
    """

    model: ServedModel
    batches: BatchCalls
    call: Call
    operation: str
    times: responses.CallTimes
    num_top: int = 0
    priority: int = 0
    usage: Usage = Usage(0, 0)  # noqa: RUF009 - frozen

    async def score(self, targets: Sequence[Target]) -> list[list[TokenLogprob]]:
        """The log-probability of every token of every target, in order; commits the call.

        Raises:
            RequestTooLarge, InvalidRequest: one cannot be scored; named `inputs[index]`.
            UnsupportedCapability: alternatives, of an engine that gives none.
        """
        num_tokens = sum(len(one.context_ids) + len(one.target_ids) for one in targets)
        self.usage = Usage(num_tokens, 0)
        try:
            if isinstance(self.model.scheduler, StepScheduler):
                found = await self._by_steps(self.model.scheduler, targets)
            else:
                found = await self._in_whole_calls(targets)
        except BaseException as error:
            self._record(error)
            raise
        self._record(None)
        return found

    def phases(self, now: float) -> tuple[Phase, ...]:
        """Texts of one call are read side by side: all of it is one phase."""
        return (Phase(PhaseName.PREFILL, self.times.leased, now),)

    async def _by_steps(
        self, scheduler: StepScheduler, targets: Sequence[Target]
    ) -> list[list[TokenLogprob]]:
        waiting: deque[Any] = deque()
        found: list[list[TokenLogprob]] = []

        async def take_first() -> None:
            found.append(await _entries_of(waiting[0]))
            waiting.popleft()

        try:
            for target in targets:
                if len(waiting) == _MAX_IN_FLIGHT:
                    await take_first()
                while (stream := self._submit(scheduler, target, is_alone=not waiting)) is None:
                    await take_first()
                waiting.append(stream)
                await self.call.commit()
            while waiting:
                await take_first()
        finally:
            for stream in waiting:
                stream.cancel()
        return found

    def _submit(self, scheduler: StepScheduler, target: Target, *, is_alone: bool) -> Any:
        """Queue one target; None when the queue is full and another of this call will end."""
        stream: Any = self.batches.open_stream(is_streamed=False)
        request = ScoringRequest(
            id=self.call.id,
            context_ids=target.context_ids,
            target_ids=target.target_ids,
            num_top_logprobs=self.num_top,
            deadline=self.call.deadline,
            priority=self.priority,
        )
        try:
            scheduler.submit_scoring(request, stream)
        except InvalidRequest as error:
            raise _named(error, target) from error
        except QueueFull:
            if is_alone:
                raise
            return None
        return stream

    async def _in_whole_calls(self, targets: Sequence[Target]) -> list[list[TokenLogprob]]:
        model = self.model
        if self.num_top:
            msg = f"top_logprobs: the engine of model {model.name} gives no alternatives"
            raise UnsupportedCapability(msg, field="top_logprobs")
        items = tuple(_row(model, target) for target in targets)
        stream = self.batches.open_stream(is_streamed=False)
        request = BatchRequest(
            self.call.id, items, deadline=self.call.deadline, priority=self.priority
        )
        model.run(request, stream)
        answers: list[Tensors] = [{}] * len(items)
        try:
            await self.call.commit()
            await collect(stream, answers)
        except InvalidRequest as error:
            if "index" not in error.details:
                raise
            raise _named(error, targets[int(error.details["index"])]) from error
        finally:
            stream.cancel()
        return [
            _entries(model, target.target_ids, answer["token_logprobs"])
            for target, answer in zip(targets, answers, strict=True)
        ]

    def _record(self, error: BaseException | None) -> None:
        self.call.record.record_inference(
            InferenceRecord(
                operation=self.operation,
                model=self.model.name,
                phases=self.phases(time.monotonic()),
                usage=self.usage,
                error=error.code if isinstance(error, LeptondError) else None,
            )
        )


async def _entries_of(stream: Any) -> list[TokenLogprob]:
    entries: list[TokenLogprob] = []
    while chunks := await stream.next():
        entries += [entry for chunk in chunks for entry in chunk.logprobs]
    return entries


def _named(error: InvalidRequest, target: Target) -> InvalidRequest:
    """The same error, naming the caller's own input."""
    return type(error)(f"{target.field}: {error.message}", field=target.field)


def _row(model: ServedModel, target: Target) -> BatchItem:
    """A decoder reads context and target as one; else the encoder reads the context."""
    options = {"task": Task.SCORE.value}
    num_tokens = len(target.context_ids) + len(target.target_ids)
    if model.text.encoder is None:
        if num_tokens > model.max_context_tokens:
            limit = model.max_context_tokens
            msg = f"context and target have {num_tokens} tokens; the model takes {limit}"
            raise _named(RequestTooLarge(msg), target)
        row = BatchRow(token_ids=target.context_ids + target.target_ids, options=options)
    else:
        tensors = {"target": np.array(target.target_ids, np.int64)}
        row = BatchRow(token_ids=target.context_ids, tensors=tensors, options=options)
    return BatchItem(row, num_tokens)


def _entries(model: ServedModel, target_ids: Sequence[int], logprobs: Any) -> list[TokenLogprob]:
    """Of a whole sequence only the target's part is kept."""
    values = logprobs[len(logprobs) - len(target_ids) :].tolist()
    return [
        TokenLogprob(token_id, value, model.tokenizer.token_bytes(token_id))
        for token_id, value in zip(target_ids, values, strict=True)
    ]
