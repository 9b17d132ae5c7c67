"""Telemetry that records: the facade over the OpenTelemetry SDK. Imported only when it is on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import (
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)

from leptond.telemetry.facade import Call, Metadata, ModelLoads, Telemetry
from leptond.telemetry.fields import Fields
from leptond.telemetry.instruments import Instruments
from leptond.telemetry.losses import SpanLosses
from leptond.telemetry.metering import Metering
from leptond.telemetry.plan import TelemetryPlan
from leptond.telemetry.propagation import extract_parent
from leptond.telemetry.record import InferenceRecord
from leptond.telemetry.spans import (
    RPC_SYSTEM,
    SERVER_ERRORS,
    EpochClock,
    make_inference_spans,
    peer_attributes,
)
from leptond.telemetry.tracing import Tracing, make_resource, make_silent_provider

__all__ = ["OtelCall", "OtelTelemetry"]

logger = logging.getLogger(__name__)

_SCOPE: Final = "leptond"
_OTHER: Final = "_OTHER"  # what the RPC conventions call a method that the server does not have
# After an abort an exporter returns at once; this only covers the way there.
_ABORT_S: Final = 0.5


class OtelCall(Call):
    """A call with a SERVER span, or with a sampled-out one that costs next to nothing."""

    __slots__ = ("_clock", "_context", "_instruments", "_name", "_span", "_tracer")

    def __init__(
        self,
        method: str,
        request_id: str,
        *,
        tracer: Tracer,
        instruments: Instruments,
        metadata: Metadata,
        peer: str,
        is_known: bool,
    ) -> None:
        super().__init__(method, request_id)
        self._tracer = tracer
        self._instruments = instruments
        self._name = method if is_known else _OTHER
        self._clock = EpochClock()
        self._span = tracer.start_span(
            self._name,
            context=extract_parent(metadata),
            kind=SpanKind.SERVER,
            attributes={"rpc.system.name": RPC_SYSTEM, "rpc.method": self._name},
            start_time=self._clock.now_ns(),
        )
        self._context = set_span_in_context(self._span, Context())
        if self._span.is_recording():
            self._span.set_attributes(peer_attributes(peer))
            self._span.set_attribute("leptond.request.id", request_id)
            if not is_known:
                self._span.set_attribute("rpc.method_original", method)

    @property
    def trace_id(self) -> str | None:
        """The id of the trace, the caller's or a new one, whether it is sampled or not."""
        return format_trace_id(self._span.get_span_context().trace_id)

    def set_label(self, label: str) -> None:
        """Note the caller's own `request_id`."""
        super().set_label(label)
        self._span.set_attribute("leptond.request.label", label)

    def record_inference(self, record: InferenceRecord) -> None:
        """Record an inference that has ended: its spans, its metrics."""
        super().record_inference(record)
        context = self._context
        if self._span.is_recording():
            context = make_inference_spans(self._tracer, self._span, record, self._clock)
        self._instruments.record_inference(record, context)

    def end(self, status: str, error: str | None = None) -> None:
        """End the SERVER span, record the call's duration and write its log line."""
        super().end(status, error)
        self._instruments.record_call(
            self._name, status, time.monotonic() - self._started, self._context
        )
        span = self._span
        if not span.is_recording():
            return
        span.set_attribute("rpc.response.status_code", status)
        if error is not None:
            span.set_attribute("leptond.error.code", error)
        if status in SERVER_ERRORS:
            span.set_attribute("error.type", status)
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._clock.now_ns())


class OtelTelemetry(Telemetry):
    """Owns the providers, the exporters and their threads."""

    def __init__(self, plan: TelemetryPlan, version: str) -> None:
        resource = make_resource(plan.service_name, version)
        self._is_stopped = False
        self._losses = SpanLosses()
        self._tracing = Tracing(plan, plan.traces, resource, self._losses) if plan.traces else None
        is_metered = plan.metrics or plan.metrics_listen
        self._metering = Metering(plan, resource) if is_metered else None
        tracers = self._tracing.provider if self._tracing else make_silent_provider()
        meters = self._metering.provider if self._metering else NoOpMeterProvider()
        self._tracer = tracers.get_tracer(_SCOPE, version)
        self._instruments = Instruments(meters.get_meter(_SCOPE, version), self._losses)
        logger.info("telemetry on %s", _describe(plan, self.metrics_address))

    @property
    def is_on(self) -> bool:
        """True."""
        return True

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Where Prometheus finds the metrics, if it may."""
        return self._metering.page_address if self._metering else None

    @property
    def lost_spans(self) -> Mapping[str, int]:
        """Spans that no collector got, by reason."""
        return self._losses.counts

    def start_call(
        self,
        method: str,
        metadata: Metadata = (),
        *,
        request_id: str,
        peer: str = "",
        is_known: bool = True,
    ) -> Call:
        """Note that an RPC arrived, below the span that its metadata names."""
        return OtelCall(
            method.removeprefix("/"),
            request_id,
            tracer=self._tracer,
            instruments=self._instruments,
            metadata=metadata,
            peer=peer,
            is_known=is_known,
        )

    def observe_models(self, loads: ModelLoads) -> None:
        """Report the load of each model through gauges."""
        self._instruments.observe_models(loads)

    def shutdown(self, timeout_s: float = 3.0) -> bool:
        """Send what is left and stop. Blocks, `timeout_s` at most and then a moment more."""
        if self._is_stopped:
            return True
        self._is_stopped = True
        parts = [part for part in (self._tracing, self._metering) if part]
        deadline = time.monotonic() + timeout_s
        closers = [
            threading.Thread(
                target=part.shutdown, args=(timeout_s,), name="leptond-telemetry-stop", daemon=True
            )
            for part in parts
        ]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(max(0.0, deadline - time.monotonic()))
        is_clean = not any(closer.is_alive() for closer in closers)
        if not is_clean:
            for part in parts:
                part.abort()
            for closer in closers:
                closer.join(_ABORT_S)
        self._losses.report(is_last=True)
        return is_clean


def _describe(plan: TelemetryPlan, metrics_address: tuple[str, int] | None) -> Fields:
    return Fields(
        traces=plan.traces.endpoint if plan.traces else None,
        metrics=plan.metrics.endpoint if plan.metrics else None,
        protocol=next((part.protocol for part in (plan.traces, plan.metrics) if part), None),
        sampler=plan.sampler if plan.traces else None,
        metrics_page="{}:{}".format(*metrics_address) if metrics_address else None,
    )
