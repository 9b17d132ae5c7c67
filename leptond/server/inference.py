"""One inference in flight: its stream, and the account of where its time went.

On the event loop. Made by the services once the request is in the queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from leptond.errors import LeptondError
from leptond.models import ServedModel
from leptond.scheduler import BatchAnswer, BatchSummary
from leptond.server.calls import Call
from leptond.server.convert import responses
from leptond.streaming import ResponseStream
from leptond.telemetry import InferenceRecord
from leptond.types import (
    GenerationRequest,
    GenerationSummary,
    Phase,
    PhaseName,
    RequestProgress,
    TokenChunk,
    Usage,
)
from leptond.v1 import common_pb2

__all__ = ["BatchInference", "GenerationInference", "Inference"]

ItemT = TypeVar("ItemT")
SummaryT = TypeVar("SummaryT", GenerationSummary, BatchSummary)


@dataclass(slots=True, kw_only=True)
class Inference(Generic[ItemT, SummaryT]):
    """State of one inference.

    Attributes:
        operation: for the span, such as `chat`.
        label: the caller's `request_id`.
        times: when the call arrived and when it had its model.
        progress: how far it is, for one that ends before its answer does.
        summary: how it ended, once it has.
    """

    operation: str
    label: str
    model: ServedModel
    stream: ResponseStream[ItemT, SummaryT]
    times: responses.CallTimes
    progress: Callable[[], RequestProgress]
    is_streamed: bool
    summary: SummaryT | None = None

    def phases(self, now: float) -> tuple[Phase, ...]:
        """Tokenise, what the worker saw, deliver: consecutive, from the lease up to `now`.

        One that was cut short has nothing to deliver: its last phase is the one it was in.
        """
        account = self.progress() if self.summary is None else self.summary
        seen: tuple[Phase, ...] = account.phases
        tokenize = Phase(PhaseName.TOKENIZE, self.times.leased, seen[0].start)
        if self.summary is None:
            return (tokenize, *seen)
        return (tokenize, *seen, Phase(PhaseName.DELIVER, seen[-1].end, now))

    @property
    def usage(self) -> Usage:
        """Tokens so far, or in all."""
        return self.progress().usage if self.summary is None else self.summary.usage

    def info(self, call: Call) -> common_pb2.ResponseInfo:
        """What the final message says of the call."""
        now = time.monotonic()
        usage = self.usage
        return responses.response_info(
            label=self.label,
            call_id=call.id,
            model=self.model.name,
            version=self.model.variant.version,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            timing=responses.timing(self.times, self.phases(now), now),
        )

    def record(self, call: Call, error: BaseException | None) -> None:
        """Hand the account to telemetry, once, when it is over."""
        call.record.record_inference(
            InferenceRecord(
                operation=self.operation,
                model=self.model.name,
                phases=self.phases(time.monotonic()),
                usage=self.usage,
                is_stream=self.is_streamed,
                error=error.code if isinstance(error, LeptondError) else None,
                **self._details(),
            )
        )

    def _details(self) -> Mapping[str, Any]:
        """What the record says of this kind of inference."""
        return {}


@dataclass(slots=True, kw_only=True)
class GenerationInference(Inference[TokenChunk, GenerationSummary]):
    """One text that is being generated.

    Attributes:
        length_bound: whose limit bounds the answer's length.
    """

    request: GenerationRequest
    length_bound: str

    def _details(self) -> Mapping[str, Any]:
        return {
            "finish_reasons": (self.summary.finish_reason,) if self.summary else (),
            "sampling": self.request.sampling,
            "max_tokens": self.request.stop.max_tokens,
        }


class BatchInference(Inference[BatchAnswer, BatchSummary]):
    """Inputs of one whole call."""

    __slots__ = ()
