"""The metrics: names, units, buckets and labels. No label takes a value from a caller.

Methods are those the server has (`_OTHER` stands for the rest), models are named by the registry,
statuses and errors are enumerations of ours, so the number of series is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from leptond.telemetry.facade import ModelLoads
from leptond.telemetry.losses import SpanLosses
from leptond.telemetry.record import InferenceRecord
from leptond.telemetry.spans import PROVIDER, RPC_SYSTEM, SERVER_ERRORS
from leptond.types import ModelLoad

__all__ = ["Instruments"]

# Buckets in seconds, all from the conventions (gen-ai-metrics.md, rpc-metrics.md).
_REQUEST_BUCKETS: Final = tuple(0.01 * 2**n for n in range(14))
_FIRST_TOKEN_BUCKETS: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)
_OUTPUT_TOKEN_BUCKETS: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)
_CALL_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)

_MODEL_GAUGES: Final[tuple[tuple[str, str, str, Callable[[ModelLoad], int]], ...]] = (
    ("leptond.requests.queued", "{request}", "Requests that wait", lambda load: load.num_queued),
    ("leptond.requests.running", "{request}", "Requests in a slot", lambda load: load.num_running),
    (
        "leptond.tokens.queued",
        "{token}",
        "Prompt tokens that wait to be prefilled",
        lambda load: load.num_queued_tokens,
    ),
    ("leptond.kv.used", "{token}", "Tokens in the KV arena", lambda load: load.kv_tokens),
    ("leptond.kv.limit", "{token}", "Room of the KV arena", lambda load: load.max_kv_tokens),
)


class Instruments:
    """Every instrument of the daemon; recorded on the event loop, once per call or inference."""

    def __init__(self, meter: Meter, losses: SpanLosses) -> None:
        self._meter = meter
        self._call_duration = meter.create_histogram(
            "rpc.server.call.duration",
            unit="s",
            description="Duration of a call, from its arrival to its status",
            explicit_bucket_boundaries_advisory=_CALL_BUCKETS,
        )
        self._request_duration = meter.create_histogram(
            "gen_ai.server.request.duration",
            unit="s",
            description="Duration of an inference, from its first phase to the last write",
            explicit_bucket_boundaries_advisory=_REQUEST_BUCKETS,
        )
        self._time_to_first_token = meter.create_histogram(
            "gen_ai.server.time_to_first_token",
            unit="s",
            description="Time to the first token, of inferences that ended well",
            explicit_bucket_boundaries_advisory=_FIRST_TOKEN_BUCKETS,
        )
        self._time_per_output_token = meter.create_histogram(
            "gen_ai.server.time_per_output_token",
            unit="s",
            description="Time per token after the first, of inferences that ended well",
            explicit_bucket_boundaries_advisory=_OUTPUT_TOKEN_BUCKETS,
        )
        meter.create_observable_counter(
            "leptond.spans.lost",
            callbacks=[
                lambda _: [Observation(n, {"error.type": why}) for why, n in losses.counts.items()]
            ],
            unit="{span}",
            description="Spans that no collector got",
        )

    def observe_models(self, loads: ModelLoads) -> None:
        """Report the load of each model, read whenever metrics are collected."""
        for name, unit, description, read in _MODEL_GAUGES:
            self._meter.create_observable_gauge(
                name, callbacks=[_observer(loads, read)], unit=unit, description=description
            )

    def record_call(self, method: str, status: str, duration_s: float, context: Context) -> None:
        """Record a call that has ended."""
        labels = {
            "rpc.system.name": RPC_SYSTEM,
            "rpc.method": method,
            "rpc.response.status_code": status,
        }
        if status in SERVER_ERRORS:
            labels["error.type"] = status
        self._call_duration.record(duration_s, labels, context=context)

    def record_inference(self, record: InferenceRecord, context: Context) -> None:
        """Record an inference that has ended."""
        labels = {
            "gen_ai.operation.name": record.operation,
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": record.model,
        }
        duration_s = record.end - record.start
        if record.error is not None:
            labels["error.type"] = record.error
            self._request_duration.record(duration_s, labels, context=context)
            return
        self._request_duration.record(duration_s, labels, context=context)
        if (first_s := record.time_to_first_token_s) is not None:
            self._time_to_first_token.record(first_s, labels, context=context)
        if (each_s := record.time_per_output_token_s) is not None:
            self._time_per_output_token.record(each_s, labels, context=context)


def _observer(
    loads: ModelLoads, read: Callable[[ModelLoad], int]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(read(load), {"gen_ai.request.model": model})
            for model, load in loads().items()
        ]

    return observe
