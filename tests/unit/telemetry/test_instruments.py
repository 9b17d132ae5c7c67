from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from leptond.telemetry.instruments import Instruments
from leptond.telemetry.losses import SpanLosses
from leptond.types import ModelLoad


class Probe:
    """Instruments, and what a reader sees of them."""

    def __init__(self) -> None:
        self.losses = SpanLosses()
        self._reader = InMemoryMetricReader()
        provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.instruments = Instruments(provider.get_meter("test"), self.losses)

    def points(self) -> dict[str, list[Any]]:
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def probe() -> Probe:
    return Probe()


def test_a_call_is_measured_by_method_and_status(probe):
    probe.instruments.record_call("a.B/C", "OK", 0.25, Context())
    probe.instruments.record_call("a.B/C", "NOT_FOUND", 0.5, Context())
    probe.instruments.record_call("_OTHER", "UNIMPLEMENTED", 1.0, Context())
    points = probe.points()["rpc.server.call.duration"]
    assert [dict(point.attributes) for point in points] == [
        {
            "rpc.system.name": "grpc",
            "rpc.method": "a.B/C",
            "rpc.response.status_code": "OK",
        },
        {
            "rpc.system.name": "grpc",
            "rpc.method": "a.B/C",
            "rpc.response.status_code": "NOT_FOUND",
        },
        {
            "rpc.system.name": "grpc",
            "rpc.method": "_OTHER",
            "rpc.response.status_code": "UNIMPLEMENTED",
            "error.type": "UNIMPLEMENTED",
        },
    ]
    assert [point.sum for point in points] == [0.25, 0.5, 1.0]
    assert points[0].explicit_bounds[:3] == (0.005, 0.01, 0.025)


def test_an_inference_is_measured_with_the_buckets_of_the_conventions(probe, record):
    probe.instruments.record_inference(record, Context())
    points = probe.points()
    duration = points["gen_ai.server.request.duration"][0]
    assert (duration.sum, duration.count) == (15.0, 1)
    assert duration.explicit_bounds[0] == 0.01
    assert duration.explicit_bounds[-1] == 81.92
    first = points["gen_ai.server.time_to_first_token"][0]
    assert (first.sum, len(first.explicit_bounds)) == (6.0, 16)
    each = points["gen_ai.server.time_per_output_token"][0]
    assert (each.sum, len(each.explicit_bounds)) == (1.0, 13)
    assert dict(each.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "leptond",
        "gen_ai.request.model": "tiny",
    }


def test_a_failed_inference_has_a_duration_and_an_error_only(probe, record):
    probe.instruments.record_inference(replace(record, error="BACKEND_FAULT"), Context())
    points = probe.points()
    (duration,) = points.pop("gen_ai.server.request.duration")
    assert duration.attributes["error.type"] == "BACKEND_FAULT"
    assert points == {}


def test_an_inference_without_tokens_has_no_token_times(probe, record):
    probe.instruments.record_inference(replace(record, usage=None), Context())
    assert list(probe.points()) == ["gen_ai.server.request.duration"]


def test_lost_spans_are_a_counter(probe):
    assert "leptond.spans.lost" not in probe.points()
    probe.losses.add("queue_full", 3)
    (point,) = probe.points()["leptond.spans.lost"]
    assert (point.value, dict(point.attributes)) == (3, {"error.type": "queue_full"})


def test_models_are_gauged_when_metrics_are_read(probe):
    loads: dict[str, ModelLoad] = {}
    probe.instruments.observe_models(lambda: loads)
    assert probe.points() == {}
    loads["tiny"] = ModelLoad(
        num_queued=1,
        num_running=2,
        max_queued=3,
        max_running=4,
        num_queued_tokens=5,
        kv_tokens=6,
        max_kv_tokens=7,
        tokens_per_s=8.0,
    )
    points = probe.points()
    assert {name: point.value for name, (point,) in points.items()} == {
        "leptond.requests.queued": 1,
        "leptond.requests.running": 2,
        "leptond.tokens.queued": 5,
        "leptond.kv.used": 6,
        "leptond.kv.limit": 7,
    }
    assert {dict(p.attributes)["gen_ai.request.model"] for (p,) in points.values()} == {"tiny"}
