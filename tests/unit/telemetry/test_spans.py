from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from leptond.telemetry.spans import (
    EpochClock,
    inference_attributes,
    make_inference_spans,
    peer_attributes,
)
from leptond.types import SamplingParams


def make_spans(record):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with_parent = tracer.start_span("server")
    make_inference_spans(tracer, with_parent, record, EpochClock())
    with_parent.end()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_phases_are_children_of_the_inference_which_is_the_calls(record):
    spans = make_spans(record)
    assert list(spans) == [
        *("tokenize", "queue", "prefill", "decode", "deliver"),
        *("chat tiny", "server"),
    ]
    inference = spans["chat tiny"]
    assert inference.parent == spans["server"].context
    phases = [spans[phase.name] for phase in record.phases]
    assert all(phase.parent == inference.context for phase in phases)


def test_consecutive_phases_add_up_to_the_inference_exactly(record):
    spans = make_spans(record)
    inference = spans["chat tiny"]
    phases = [spans[phase.name] for phase in record.phases]
    assert sum(p.end_time - p.start_time for p in phases) == 15_000_000_000
    assert inference.end_time - inference.start_time == 15_000_000_000
    assert all(a.end_time == b.start_time for a, b in pairwise(phases))


def test_a_failed_inference_has_the_status_error(record):
    failed = make_spans(replace(record, error="SLOW_READER"))["chat tiny"]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["error.type"] == "SLOW_READER"
    assert make_spans(record)["chat tiny"].status.status_code is StatusCode.UNSET


def test_attributes_follow_the_conventions(record):
    assert inference_attributes(record) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "leptond",
        "gen_ai.request.model": "tiny",
        "gen_ai.response.model": "tiny",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 40,
        "gen_ai.request.seed": 11,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 6.0,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 3,
    }


def test_what_is_off_or_unknown_is_left_out(record):
    plain = replace(
        record, usage=None, finish_reasons=(), sampling=SamplingParams(), max_tokens=None
    )
    assert inference_attributes(plain) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "leptond",
        "gen_ai.request.model": "tiny",
        "gen_ai.response.model": "tiny",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 1.0,
    }
    assert "gen_ai.request.temperature" not in inference_attributes(replace(plain, sampling=None))


def test_several_choices_and_penalties_are_told(record):
    busy = replace(
        record,
        num_choices=3,
        sampling=SamplingParams(frequency_penalty=0.5, presence_penalty=-0.25),
    )
    attributes = inference_attributes(busy)
    assert attributes["gen_ai.request.choice.count"] == 3
    assert attributes["gen_ai.request.frequency_penalty"] == 0.5
    assert attributes["gen_ai.request.presence_penalty"] == -0.25


@pytest.mark.parametrize(
    ("peer", "attributes"),
    [
        ("unix:", {"network.transport": "unix"}),
        (
            "ipv4:127.0.0.1:40000",
            {
                "network.transport": "tcp",
                "network.peer.address": "127.0.0.1",
                "network.peer.port": 40000,
            },
        ),
        (
            "ipv6:%5B::1%5D:40001",
            {
                "network.transport": "tcp",
                "network.peer.address": "::1",
                "network.peer.port": 40001,
            },
        ),
        ("", {}),
        ("ipv4:nonsense", {}),
        ("vsock:1:2", {}),
    ],
)
def test_a_peer_is_named_as_the_conventions_do(peer, attributes):
    assert peer_attributes(peer) == attributes


def test_the_epoch_clock_agrees_with_the_wall_clock():
    clock = EpochClock()
    assert abs(clock.now_ns() - time.time_ns()) < 1_000_000_000
    assert abs(clock.to_ns(time.monotonic()) - clock.now_ns()) < 1_000_000_000
