"""The facade against a real collector, over gRPC and over HTTP."""

from __future__ import annotations

import socket
import time
import urllib.request
from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest

from leptond.telemetry import CHAT, InferenceRecord, Telemetry
from leptond.types import ModelLoad, Phase, PhaseName, SamplingParams, Usage
from tests.fixtures.otlp_receiver import OtlpReceiver, ReceivedSpan

METHOD = "leptond.v1.TextGenerationService/ChatStream"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
PHASES = ("tokenize", "queue", "prefill", "decode", "deliver")
SPANS_PER_CALL = 2 + len(PHASES)


def make_record(**changes: Any) -> InferenceRecord:
    """A streamed chat that ended just now, its phases as a server would have noted them."""
    now = time.monotonic()
    times = (now - 1.5, now - 1.49, now - 1.2, now - 0.9, now - 0.001, now)
    phases = [
        Phase(name, start, end)
        for name, (start, end) in zip(PhaseName, pairwise(times), strict=True)
    ]
    facts: dict[str, Any] = {
        "operation": CHAT,
        "model": "tiny",
        "phases": tuple(phases),
        "usage": Usage(12, 34),
        "finish_reasons": ("stop",),
        "sampling": SamplingParams(temperature=0.25),
        "is_stream": True,
    }
    return InferenceRecord(**(facts | changes))


def serve_chat(telemetry: Telemetry, *metadata: tuple[str, str]) -> str | None:
    call = telemetry.start_call(f"/{METHOD}", metadata, request_id="r1", peer="unix:")
    call.set_label("mine")
    call.record_inference(make_record())
    call.end("OK")
    return call.trace_id


def by_name(spans: list[ReceivedSpan]) -> dict[str, ReceivedSpan]:
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def test_a_streamed_chat_arrives_as_a_whole_tree(receiver, protocol, configure):
    telemetry = configure(
        endpoint=receiver.endpoint, protocol=protocol, headers={"authorization": "Bearer t"}
    )
    trace_id = serve_chat(telemetry, ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"))

    spans = by_name(receiver.wait_for_spans(SPANS_PER_CALL))
    assert set(spans) == {METHOD, "chat tiny", *PHASES}
    assert {span.trace_id for span in spans.values()} == {TRACE_ID} == {trace_id}
    server, inference = spans[METHOD], spans["chat tiny"]
    phases = [spans[name] for name in PHASES]
    assert (server.kind, server.parent_id) == ("SERVER", PARENT_ID)
    assert (inference.kind, inference.parent_id) == ("INTERNAL", server.span_id)
    assert {phase.parent_id for phase in phases} == {inference.span_id}
    assert {phase.kind for phase in phases} == {"INTERNAL"}

    assert all(a.end_ns == b.start_ns for a, b in pairwise(phases))
    total_ns = sum(phase.duration_ns for phase in phases)
    assert total_ns == pytest.approx(inference.duration_ns, rel=0.05)
    assert inference.duration_ns == pytest.approx(1.5e9, rel=0.01)

    assert server.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.response.status_code": "OK",
        "network.transport": "unix",
        "leptond.request.id": "r1",
        "leptond.request.label": "mine",
    }
    assert server.status == inference.status == "UNSET"
    assert inference.attributes["gen_ai.operation.name"] == "chat"
    assert inference.attributes["gen_ai.request.model"] == "tiny"
    assert inference.attributes["gen_ai.usage.input_tokens"] == 12
    assert inference.attributes["gen_ai.usage.output_tokens"] == 34
    assert inference.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert server.resource["service.name"] == "leptond"
    assert server.resource["service.version"] == "1.2.3"
    assert receiver.requests_metadata[0]["authorization"] == "Bearer t"


def test_without_a_caller_s_trace_the_call_is_a_root(receiver, protocol, configure):
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    trace_id = serve_chat(telemetry)
    spans = by_name(receiver.wait_for_spans(SPANS_PER_CALL))
    assert spans[METHOD].parent_id == ""
    assert spans[METHOD].trace_id == trace_id


def test_the_standard_variables_alone_are_enough(receiver, protocol, configure, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=abc")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "chat-east")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    serve_chat(configure())
    span = receiver.wait_for_spans(SPANS_PER_CALL)[0]
    assert span.resource["service.name"] == "chat-east"
    assert span.resource["deployment.environment.name"] == "test"
    assert receiver.requests_metadata[0]["x-key"] == "abc"


def test_a_failed_call_says_how(receiver, protocol, configure):
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    call = telemetry.start_call(f"/{METHOD}", request_id="r1", peer="ipv4:10.0.0.1:5")
    call.record_inference(make_record(error="BACKEND_FAULT", usage=None))
    call.end("INTERNAL", "BACKEND_FAULT")
    spans = by_name(receiver.wait_for_spans(SPANS_PER_CALL))
    assert spans[METHOD].status == spans["chat tiny"].status == "ERROR"
    assert spans[METHOD].attributes["error.type"] == "INTERNAL"
    assert spans[METHOD].attributes["leptond.error.code"] == "BACKEND_FAULT"
    assert spans[METHOD].attributes["network.peer.address"] == "10.0.0.1"
    assert spans["chat tiny"].attributes["error.type"] == "BACKEND_FAULT"


def test_a_caller_s_mistake_is_no_error_of_the_server(receiver, protocol, configure):
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    telemetry.start_call("/a.B/C", request_id="r").end("NOT_FOUND", "MODEL_NOT_FOUND")
    (span,) = receiver.wait_for_spans(1)
    assert span.status == "UNSET"
    assert span.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert "error.type" not in span.attributes


def test_an_unknown_method_does_not_name_spans_or_series(receiver, protocol, configure):
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    telemetry.start_call("/evil/1234", request_id="r", is_known=False).end("UNIMPLEMENTED")
    assert telemetry.shutdown()
    (span,) = receiver.wait_for_spans(1)
    assert span.name == span.attributes["rpc.method"] == "_OTHER"
    assert span.attributes["rpc.method_original"] == "evil/1234"
    (point,) = receiver.wait_for_metric("rpc.server.call.duration")
    assert point.attributes["rpc.method"] == "_OTHER"


def test_what_the_sampler_drops_is_not_sent_but_has_a_trace_id(receiver, protocol, configure):
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, sampler="always_off")
    trace_id = serve_chat(telemetry)
    assert trace_id is not None
    assert telemetry.shutdown()
    assert receiver.spans == []
    assert receiver.wait_for_metric("gen_ai.server.request.duration")[0].count == 1


def test_the_caller_decides_whether_its_trace_is_kept(receiver, protocol, configure):
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    serve_chat(telemetry, ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-00"))
    serve_chat(telemetry, ("traceparent", f"00-{TRACE_ID[::-1]}-{PARENT_ID}-01"))
    assert telemetry.shutdown()
    assert {span.trace_id for span in receiver.spans} == {TRACE_ID[::-1]}


@pytest.mark.parametrize(("ratio", "num_calls_kept"), [(0.0, 0), (1.0, 5)])
def test_a_ratio_keeps_its_share(receiver, protocol, configure, ratio, num_calls_kept):
    telemetry = configure(
        endpoint=receiver.endpoint,
        protocol=protocol,
        sampler="parentbased_traceidratio",
        sampler_ratio=ratio,
    )
    for _ in range(5):
        serve_chat(telemetry)
    assert telemetry.shutdown()
    assert len(receiver.spans) == num_calls_kept * SPANS_PER_CALL


def test_metrics_are_pushed_with_their_units_and_buckets(receiver, protocol, configure):
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    telemetry.observe_models(lambda: {"tiny": ModelLoad(1, 2, 3, 4, 5, 6, 7, 8.0)})
    serve_chat(telemetry)
    assert telemetry.shutdown()
    (first,) = receiver.wait_for_metric("gen_ai.server.time_to_first_token")
    assert (first.unit, first.count, first.bounds[0]) == ("s", 1, 0.001)
    assert first.sum == pytest.approx(0.6, rel=0.01)
    (each,) = receiver.wait_for_metric("gen_ai.server.time_per_output_token")
    assert each.sum == pytest.approx(0.899 / 33, rel=0.01)
    (call,) = receiver.wait_for_metric("rpc.server.call.duration")
    assert call.attributes["rpc.method"] == METHOD
    (queued,) = receiver.wait_for_metric("leptond.requests.queued")
    assert queued.value == 1


@pytest.mark.parametrize("signal", ["traces", "metrics"])
def test_one_signal_alone_can_be_on(receiver, protocol, configure, signal, monkeypatch):
    path = f"/v1/{signal}" if protocol == "http/protobuf" else ""
    variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    monkeypatch.setenv(variable, receiver.endpoint + path)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    telemetry = configure()
    trace_id = serve_chat(telemetry, ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"))
    assert trace_id == TRACE_ID
    assert telemetry.shutdown()
    assert bool(receiver.spans) == (signal == "traces")
    assert bool(receiver.points) == (signal == "metrics")


def test_a_collector_that_does_not_answer_holds_no_call_up(
    receiver: OtlpReceiver, protocol, configure, monkeypatch
):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "70")
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    receiver.hold()
    serve_chat(telemetry)
    receiver.wait_for_export()  # it hangs from here on
    num_calls = 100
    for _ in range(num_calls):
        serve_chat(telemetry)
    assert receiver.spans == []  # every call above ended while the collector was silent
    assert telemetry.lost_spans["queue_full"] == num_calls * SPANS_PER_CALL - 70
    receiver.release()
    assert telemetry.shutdown()
    num_made = (num_calls + 1) * SPANS_PER_CALL
    assert len(receiver.spans) + sum(telemetry.lost_spans.values()) == num_made


def test_a_dead_collector_loses_spans_counts_them_and_stops_in_time(configure, protocol, caplog):
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]  # nobody listens there once it is closed
    telemetry = configure(endpoint=f"http://127.0.0.1:{port}", protocol=protocol)
    serve_chat(telemetry)
    started = time.monotonic()
    telemetry.shutdown(timeout_s=0.5)
    assert time.monotonic() - started < 5.0
    assert telemetry.lost_spans == {"export_failed": SPANS_PER_CALL}
    (line,) = [r.getMessage() for r in caplog.records if r.name == "leptond.telemetry.losses"]
    assert line == f"spans lost num_spans={SPANS_PER_CALL} total=7 export_failed=7"


def test_spans_that_end_after_the_shutdown_are_counted(receiver, protocol, configure):
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    call = telemetry.start_call("/a.B/C", request_id="r1")
    assert telemetry.shutdown()
    call.end("OK")
    assert telemetry.lost_spans == {"shut_down": 1}


def test_no_text_of_a_caller_is_exported(receiver, protocol, configure):
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    metadata = [("user-agent", "secret-agent"), ("authorization", "Bearer secret-token")]
    serve_chat(telemetry, *metadata)
    assert telemetry.shutdown()
    everything = f"{receiver.spans} {receiver.points}"
    assert "secret" not in everything


def read_page(telemetry: Telemetry) -> str:
    assert telemetry.metrics_address is not None
    host, port = telemetry.metrics_address
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
        return str(answer.read(), "utf-8")


def test_prometheus_finds_the_metrics_on_a_page(configure):
    telemetry = configure(metrics_listen="127.0.0.1:0")
    serve_chat(telemetry)
    page = read_page(telemetry)
    assert "gen_ai_server_time_to_first_token_seconds_bucket" in page
    assert f'rpc_method="{METHOD}"' in page
    assert 'gen_ai_request_model="tiny"' in page


def test_a_page_that_cannot_be_bound_stops_the_start(configure):
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as taken,
        pytest.raises(OSError, match=r"cannot serve metrics on 127.0.0.1:\d+: .* in use"),
    ):
        configure(metrics_listen=f"127.0.0.1:{taken.getsockname()[1]}")
