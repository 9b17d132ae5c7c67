"""One generation in flight: what was asked, its stream, and the account of where its time went.

On the event loop. Made by `leptond.server.generation` once the request is in the queue.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from leptond.errors import LeptondError
from leptond.models import ServedModel
from leptond.server.calls import Call
from leptond.server.convert import responses
from leptond.streaming import ResponseStream
from leptond.telemetry import InferenceRecord
from leptond.types import GenerationRequest, GenerationSummary, Phase, PhaseName, TokenChunk
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
        submitted: when the scheduler took it.
        summary: how it ended, once it has.
    """

    operation: str
    label: str
    model: ServedModel
    request: GenerationRequest
    stream: ResponseStream[TokenChunk, GenerationSummary]
    length_bound: str
    times: responses.CallTimes
    submitted: float
    is_streamed: bool
    summary: GenerationSummary | None = None

    def phases(self, now: float) -> tuple[Phase, ...]:
        """Tokenise, what the worker saw, deliver: consecutive, from the lease up to `now`."""
        seen = self.summary.phases if self.summary is not None else ()
        begins = seen[0].start if seen else self.submitted
        ends = seen[-1].end if seen else begins
        last = PhaseName.DELIVER if seen else PhaseName.QUEUE
        return (
            Phase(PhaseName.TOKENIZE, self.times.leased, begins),
            *seen,
            Phase(last, ends, now),
        )

    def info(self, call: Call) -> common_pb2.ResponseInfo:
        """What the final message says of the call."""
        now = time.monotonic()
        usage = self.summary.usage if self.summary is not None else None
        return responses.response_info(
            label=self.label,
            call_id=call.id,
            model=self.model.name,
            version=self.model.variant.version,
            prompt_tokens=len(self.request.prompt_ids),
            completion_tokens=usage.completion_tokens if usage else 0,
            cached_tokens=usage.cached_tokens if usage else 0,
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
                usage=summary.usage if summary else None,
                finish_reasons=(summary.finish_reason,) if summary else (),
                sampling=self.request.sampling,
                max_tokens=self.request.stop.max_tokens,
                is_stream=self.is_streamed,
                error=reason,
            )
        )
