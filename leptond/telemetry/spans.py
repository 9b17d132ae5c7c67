"""The spans of one call: names, kinds, times and attributes, and nothing that a caller wrote.

    SERVER    leptond.v1.TextGenerationService/ChatStream          rpc.*
    └─INTERNAL  chat smollm2-135m-instruct                         gen_ai.*
      ├─ tokenize ─ queue ─ prefill ─ decode ─ deliver             one per phase, end to end

Names and attributes follow the OpenTelemetry conventions for RPC (release candidate, semantic
conventions 1.44) and for GenAI (development); `leptond.*` is what they lack. Prompts, answers and
stop strings never appear.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from leptond.telemetry.record import InferenceRecord
from leptond.types import SamplingParams

__all__ = [
    "PROVIDER",
    "RPC_SYSTEM",
    "SERVER_ERRORS",
    "EpochClock",
    "inference_attributes",
    "make_inference_spans",
    "peer_attributes",
]

PROVIDER: Final = "leptond"
RPC_SYSTEM: Final = "grpc"

# Statuses that are the server's fault: "gRPC server span status" of the RPC conventions.
SERVER_ERRORS: Final = frozenset(
    {"DATA_LOSS", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNIMPLEMENTED", "UNKNOWN"}
)

AttributeValue = str | bool | int | float | tuple[str, ...]


class EpochClock:
    """Monotonic seconds as nanoseconds since 1970, by one offset, so that differences stay exact.

    One per call: the wall clock may be set, and a machine may sleep, between calls.
    """

    __slots__ = ("_offset_ns",)

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def to_ns(self, monotonic_s: float) -> int:
        """Convert a reading of `time.monotonic()`."""
        return self._offset_ns + round(monotonic_s * 1e9)

    def now_ns(self) -> int:
        """Return this moment on the same scale."""
        return self._offset_ns + time.monotonic_ns()


def make_inference_spans(
    tracer: Tracer, parent: Span, record: InferenceRecord, clock: EpochClock
) -> Context:
    """Make, and end, the span of an inference and those of its phases below `parent`.

    Returns the inference's context, for exemplars.
    """
    span = tracer.start_span(
        f"{record.operation} {record.model}",
        context=set_span_in_context(parent, Context()),
        kind=SpanKind.INTERNAL,
        attributes=inference_attributes(record),
        start_time=clock.to_ns(record.start),
    )
    context = set_span_in_context(span, Context())
    for phase in record.phases:
        child = tracer.start_span(
            phase.name.value, context=context, start_time=clock.to_ns(phase.start)
        )
        child.end(clock.to_ns(phase.end))
    if record.error is not None:
        span.set_status(Status(StatusCode.ERROR))
    span.end(clock.to_ns(record.end))
    return context


def inference_attributes(record: InferenceRecord) -> dict[str, AttributeValue]:
    """Return the `gen_ai.*` attributes of an inference; what is unknown or off is left out."""
    attributes: dict[str, AttributeValue | None] = {
        "gen_ai.operation.name": record.operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": record.model,
        "gen_ai.response.model": record.model,
        "gen_ai.request.stream": record.is_stream,
        "gen_ai.request.max_tokens": record.max_tokens,
        "gen_ai.request.choice.count": record.num_choices if record.num_choices != 1 else None,
        "gen_ai.response.finish_reasons": record.finish_reasons or None,
        "gen_ai.response.time_to_first_chunk": record.time_to_first_token_s,
        "error.type": record.error,
    }
    if record.sampling is not None:
        attributes |= _sampling_attributes(record.sampling)
    if record.usage is not None:
        attributes |= {
            "gen_ai.usage.input_tokens": record.usage.prompt_tokens,
            "gen_ai.usage.output_tokens": record.usage.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": record.usage.cached_tokens or None,
        }
    return {key: value for key, value in attributes.items() if value is not None}


def _sampling_attributes(sampling: SamplingParams) -> dict[str, AttributeValue | None]:
    return {
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p if sampling.top_p < 1 else None,
        "gen_ai.request.top_k": sampling.top_k or None,
        "gen_ai.request.seed": sampling.seed,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty or None,
        "gen_ai.request.presence_penalty": sampling.presence_penalty or None,
    }


def peer_attributes(peer: str) -> Mapping[str, AttributeValue]:
    """Return the `network.*` attributes of gRPC's name of a peer (`ipv4:127.0.0.1:40000`)."""
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return {"network.transport": "unix"}
    host, _, port = rest.rpartition(":")
    if kind not in {"ipv4", "ipv6"} or not port.isdecimal():
        return {}
    # gRPC escapes the brackets and the zone of an IPv6 address.
    host = host.replace("%5B", "").replace("%5D", "").replace("%25", "%").strip("[]")
    return {
        "network.transport": "tcp",
        "network.peer.address": host,
        "network.peer.port": int(port),
    }
