"""One generation in flight: what was asked, its stream, and the account of where its time went.

On the event loop. Made by `leptond.server.generation` once the request is in the queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from leptond.errors import LeptondError
from leptond.models import ServedModel
from leptond.server.calls import Call
from leptond.server.convert import responses
from leptond.streaming import ResponseStream
from leptond.telemetry import InferenceRecord
from leptond.types import (
    GenerationProgress,
    GenerationRequest,
    GenerationSummary,
    Phase,
    PhaseName,
    TokenChunk,
    Usage,
)
from leptond.v1 import common_pb2

__all__ = ["Inference"]


@dataclass(slots=True)
class Inference:
    """State of one generation.

    Attributes:
        operation: for the span, such as `chat`.
        label: the caller's `request_id`.
        length_bound: whose limit bounds the answer's length.
        times: when the call arrived and when it had its model.
        progress: how far it is, for one that ends before its answer does.
        summary: how it ended, once it has.
    """

    operation: str
    label: str
    model: ServedModel
    request: GenerationRequest
    stream: ResponseStream[TokenChunk, GenerationSummary]
    length_bound: str
    times: responses.CallTimes
    progress: Callable[[], GenerationProgress]
    is_streamed: bool
    summary: GenerationSummary | None = None

    def phases(self, now: float) -> tuple[Phase, ...]:
        """Tokenise, what the worker saw, deliver: consecutive, from the lease up to `now`.

        One that was cut short has nothing to deliver: its last phase is the one it was in.
        """
        seen = self.progress().phases if self.summary is None else self.summary.phases
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
        summary = self.summary
        reason = error.code if isinstance(error, LeptondError) else None
        call.record.record_inference(
            InferenceRecord(
                operation=self.operation,
                model=self.model.name,
                phases=self.phases(time.monotonic()),
                usage=self.usage,
                finish_reasons=(summary.finish_reason,) if summary else (),
                sampling=self.request.sampling,
                max_tokens=self.request.stop.max_tokens,
                is_stream=self.is_streamed,
                error=reason,
            )
        )
