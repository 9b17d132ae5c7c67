"""The spans of one streamed chat, as a collector must get them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.fixtures.calls import chat, text_generation
from tests.fixtures.daemon import DaemonProcess
from tests.fixtures.otlp_receiver import OtlpReceiver, ReceivedSpan

METHOD = "leptond.v1.TextGenerationService/ChatStream"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
TRACEPARENT = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"),)
PHASES = ["tokenize", "queue", "prefill", "decode", "deliver"]
NUM_SPANS = 2 + len(PHASES)
MAX_TOKENS = 40


def exporting_to(endpoint: str, protocol: str) -> dict[str, str]:
    """The standard variables that make a daemon export there, soon after each call."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }


def check_streamed_chat(
    daemon: DaemonProcess, channel: Any, receiver: OtlpReceiver, model: str
) -> None:
    """Stream a chat inside a trace of the caller's, stop the daemon, look at what arrived."""
    request = chat(("user", "Tell me a secret"), model=model, max_tokens=MAX_TOKENS)
    call = text_generation(channel).ChatStream(request, metadata=TRACEPARENT)
    info = list(call)[-1].info
    receiver.wait_for_spans(NUM_SPANS)  # while the daemon runs
    assert daemon.stop() == 0
    spans = [span for span in receiver.spans if span.trace_id == TRACE_ID]
    assert len(spans) == NUM_SPANS
    _check_tree({span.name: span for span in spans}, info)
    trailer = dict(call.trailing_metadata())
    assert trailer["x-trace-id"] == TRACE_ID
    (entry,) = daemon.log("leptond.request")
    assert entry["trace_id"] == TRACE_ID
    assert entry["request_id"] == trailer["x-request-id"] == info.server_request_id
    assert "secret" not in f"{spans}{daemon.errors}"


def _check_tree(spans: dict[str, ReceivedSpan], info: Any) -> None:
    server, inference = spans[METHOD], spans[f"chat {info.model}"]
    phases = [spans[name] for name in PHASES]
    assert (server.kind, server.parent_id) == ("SERVER", PARENT_ID)
    assert (inference.kind, inference.parent_id) == ("INTERNAL", server.span_id)
    assert [phase.parent_id for phase in phases] == [inference.span_id] * len(phases)
    assert all(before.end_ns == after.start_ns for before, after in pairwise(phases))
    total_ns = sum(phase.duration_ns for phase in phases)
    assert total_ns == pytest.approx(inference.duration_ns, rel=0.05)
    # What the answer itself says of its time is the same.
    for name in ("tokenize", "queue", "prefill", "decode"):
        assert spans[name].duration_ns / 1e6 == pytest.approx(
            getattr(info.timing, f"{name}_ms"), abs=0.1
        )

    assert server.resource["service.name"] == "leptond"
    assert server.resource["deployment.environment.name"] == "test"
    assert server.attributes["rpc.system.name"] == "grpc"
    assert server.attributes["rpc.response.status_code"] == "OK"
    assert server.attributes["leptond.request.id"] == info.server_request_id
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "leptond",
        "gen_ai.request.model": info.model,
        "gen_ai.response.model": info.model,
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": MAX_TOKENS,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.usage.input_tokens": info.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": info.usage.completion_tokens,
    }
    assert inference.attributes.items() >= expected.items()
    assert inference.attributes["gen_ai.response.time_to_first_chunk"] > 0
