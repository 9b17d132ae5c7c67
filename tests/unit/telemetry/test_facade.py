from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace

import pytest

from leptond.errors import InvariantViolation
from leptond.telemetry import Telemetry, TelemetryOptions


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry.configure(TelemetryOptions(), {})


def request_lines(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "leptond.request"]


def test_off_is_the_default(telemetry):
    assert not telemetry.is_on
    telemetry.observe_models(dict)
    assert telemetry.metrics_address is None
    assert telemetry.lost_spans == {}
    assert telemetry.shutdown()


def test_off_imports_nothing_of_opentelemetry():
    code = (
        "import sys; from leptond.telemetry import *; from leptond.telemetry import Telemetry\n"
        "t = Telemetry.configure(TelemetryOptions(), {}); t.start_call('/a/B', request_id='r')\n"
        "sys.exit(any(name.split('.')[0] in {'opentelemetry', 'grpc'} for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_call_has_no_trace_while_telemetry_is_off(telemetry):
    metadata = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
    assert telemetry.start_call("/a.B/C", metadata, request_id="r1").trace_id is None


def test_a_call_writes_one_line_when_it_ends(telemetry, caplog, record):
    caplog.set_level(logging.INFO)
    call = telemetry.start_call("/leptond.v1.S/Chat", request_id="r1")
    call.set_label("the caller's own")
    call.record_inference(record)
    assert request_lines(caplog) == []
    call.end("OK")
    (line,) = request_lines(caplog)
    head, _, tail = line.partition(" duration_ms=")
    assert head == "request method=leptond.v1.S/Chat status=OK"
    assert tail.partition(" ")[2] == (
        "model=tiny prompt_tokens=7 cached_tokens=3 completion_tokens=5 finish_reason=stop "
        "tokenize_ms=1000 queue_ms=2000 prefill_ms=3000 decode_ms=4000 deliver_ms=5000 "
        'label="the caller\'s own" request_id=r1'
    )


def test_a_refused_call_names_its_error(telemetry, caplog):
    caplog.set_level(logging.INFO)
    telemetry.start_call("/a.B/C", request_id="r1").end("NOT_FOUND", "MODEL_NOT_FOUND")
    (line,) = request_lines(caplog)
    assert "status=NOT_FOUND error=MODEL_NOT_FOUND" in line


def test_health_checks_are_told_only_when_they_fail(telemetry, caplog):
    caplog.set_level(logging.INFO)
    telemetry.start_call("/grpc.health.v1.Health/Check", request_id="r1").end("OK")
    assert request_lines(caplog) == []
    telemetry.start_call("/grpc.health.v1.Health/Check", request_id="r2").end("INTERNAL")
    assert len(request_lines(caplog)) == 1


def test_no_line_is_made_that_nobody_reads(telemetry, caplog):
    caplog.set_level(logging.WARNING, logger="leptond.request")
    telemetry.start_call("/a.B/C", request_id="r1").end("OK")
    assert request_lines(caplog) == []


def test_ending_a_call_twice_is_a_bug(telemetry):
    call = telemetry.start_call("/a.B/C", request_id="r1")
    call.end("OK")
    with pytest.raises(InvariantViolation, match="r1 ended twice"):
        call.end("OK")


def test_a_multiplexed_call_sums_its_inferences_up(telemetry, caplog, record):
    caplog.set_level(logging.INFO)
    call = telemetry.start_call("/a.B/Converse", request_id="r1")
    call.record_inference(record)
    call.record_inference(replace(record, model="other"))
    call.end("OK")
    (line,) = request_lines(caplog)
    assert "model=other,tiny num_inferences=2 prompt_tokens=14" in line
