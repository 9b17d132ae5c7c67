"""The caller's trace context out of gRPC metadata.

W3C `traceparent` and `tracestate`; else `grpc-trace-bin`, the binary form that gRPC's own
plug-ins send (gRFC A72). What cannot be read is ignored, as both specifications ask: the call then
starts a trace of its own.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from leptond.telemetry.facade import Metadata

__all__ = ["extract_parent"]

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_TEXT_KEYS: Final = ("traceparent", "tracestate")
_BINARY_KEY: Final = "grpc-trace-bin"

# Version 0, then field id and bytes of: trace id (16), span id (8), options (1); gRFC A72.
_NUM_BINARY_BYTES: Final = 29
_TRACE_ID: Final = slice(2, 18)
_SPAN_ID: Final = slice(19, 27)
_FIELD_IDS: Final = {0: 0, 1: 0, 18: 1, 27: 2}
_OPTIONS_AT: Final = 28


def extract_parent(metadata: Metadata) -> Context:
    """Return a context whose span is the caller's, or an empty one."""
    carrier: dict[str, list[str]] = {}
    binary: bytes | None = None
    for key, value in metadata:
        if key in _TEXT_KEYS and isinstance(value, str):
            carrier.setdefault(key, []).append(value)
        elif key == _BINARY_KEY and isinstance(value, bytes):
            binary = value
    if len(carrier.get("traceparent", ())) == 1:  # two of them: neither is to be trusted
        return _PROPAGATOR.extract(carrier, Context())
    return _from_binary(binary) if binary is not None else Context()


def _from_binary(value: bytes) -> Context:
    if len(value) != _NUM_BINARY_BYTES or any(value[at] != id_ for at, id_ in _FIELD_IDS.items()):
        return Context()
    parent = SpanContext(
        trace_id=int.from_bytes(value[_TRACE_ID]),
        span_id=int.from_bytes(value[_SPAN_ID]),
        is_remote=True,
        trace_flags=TraceFlags(value[_OPTIONS_AT] & TraceFlags.SAMPLED),
    )
    return (
        set_span_in_context(NonRecordingSpan(parent), Context()) if parent.is_valid else Context()
    )
