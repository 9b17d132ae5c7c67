from __future__ import annotations

import pytest
from opentelemetry.trace import SpanContext, get_current_span

from leptond.telemetry.propagation import extract_parent

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
SPAN_ID = 0xB7AD6B7169203331
TRACEPARENT = f"00-{TRACE_ID:032x}-{SPAN_ID:016x}-01"
BINARY = b"\x00\x00" + TRACE_ID.to_bytes(16) + b"\x01" + SPAN_ID.to_bytes(8) + b"\x02\x01"


def parent(*metadata: tuple[str, str | bytes]) -> SpanContext:
    return get_current_span(extract_parent(metadata)).get_span_context()


def test_without_a_trace_context_there_is_no_parent():
    assert not parent(("user-agent", "x")).is_valid


def test_traceparent_and_tracestate_are_honoured():
    context = parent(("traceparent", TRACEPARENT), ("tracestate", "a=1,b=2"))
    assert (context.trace_id, context.span_id) == (TRACE_ID, SPAN_ID)
    assert context.is_remote
    assert context.trace_flags.sampled
    assert dict(context.trace_state) == {"a": "1", "b": "2"}


def test_an_unsampled_parent_stays_unsampled():
    context = parent(("traceparent", TRACEPARENT[:-1] + "0"))
    assert context.is_valid
    assert not context.trace_flags.sampled


def test_the_binary_form_is_honoured():
    context = parent(("grpc-trace-bin", BINARY))
    assert (context.trace_id, context.span_id) == (TRACE_ID, SPAN_ID)
    assert context.is_remote
    assert context.trace_flags.sampled


def test_the_standard_form_wins_over_the_binary_one():
    other = TRACEPARENT.replace("b7ad", "1111")
    context = parent(("grpc-trace-bin", BINARY), ("traceparent", other))
    assert context.span_id == int("11116b7169203331", 16)


@pytest.mark.parametrize(
    "metadata",
    [
        [("traceparent", "")],
        [("traceparent", "00-0-0-01")],
        [("traceparent", f"ff-{TRACE_ID:032x}-{SPAN_ID:016x}-01")],
        [("traceparent", f"00-{0:032x}-{SPAN_ID:016x}-01")],
        [("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)],
        [("traceparent", b"00")],
        [("grpc-trace-bin", b"")],
        [("grpc-trace-bin", BINARY[:-1])],
        [("grpc-trace-bin", BINARY + b"\x00")],
        [("grpc-trace-bin", b"\x01" + BINARY[1:])],
        [("grpc-trace-bin", BINARY[:18] + b"\x07" + BINARY[19:])],
        [("grpc-trace-bin", b"\x00\x00" + bytes(16) + BINARY[18:])],
        [("grpc-trace-bin", "text")],
        [("tracestate", "a=1")],
    ],
)
def test_what_cannot_be_read_is_ignored(metadata):
    assert not parent(*metadata).is_valid


def test_a_hostile_tracestate_does_no_harm():
    context = parent(("traceparent", TRACEPARENT), ("tracestate", "=,;\x00" * 1_000))
    assert context.trace_id == TRACE_ID
