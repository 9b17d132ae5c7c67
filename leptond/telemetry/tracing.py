"""The tracer provider and its exporter, made from a plan; bounded in every way.

A collector that is slow or dead costs spans and nothing else: `BoundedSpanProcessor` takes a span
only while fewer than `OTEL_BSP_MAX_QUEUE_SIZE` wait, and a background thread does the sending.
No global provider is set: whatever else uses OpenTelemetry in this process, our own exporter's gRPC
channel among it, is not traced by us.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from leptond.telemetry.losses import SpanLosses
from leptond.telemetry.plan import SignalPlan, TelemetryPlan

__all__ = ["BoundedSpanProcessor", "Tracing", "make_resource", "make_silent_provider"]

SERVICE_NAME: Final = "leptond"


class Tracing:
    """Owns the tracer provider, its processor and its exporter."""

    def __init__(
        self, plan: TelemetryPlan, traces: SignalPlan, resource: Resource, losses: SpanLosses
    ) -> None:
        self._processor = BoundedSpanProcessor(_make_span_exporter(traces), plan, losses)
        self.provider = TracerProvider(
            sampler=_make_sampler(plan.sampler, plan.sampler_ratio),
            resource=resource,
            shutdown_on_exit=False,  # the composition root does it, with a bound
        )
        self.provider.add_span_processor(self._processor)

    def shutdown(self, timeout_s: float) -> None:
        """Send what waits and stop. Blocks; the SDK bounds it by 30 s, `abort` by less."""
        del timeout_s
        self.provider.shutdown()

    def abort(self) -> None:
        """End a `shutdown` that takes too long: what still waits is lost. Any other thread."""
        self._processor.abort()


def make_silent_provider() -> TracerProvider:
    """Return a provider for metrics without spans: calls have a trace id and no span is kept."""
    return TracerProvider(sampler=sampling.ALWAYS_OFF, shutdown_on_exit=False)


def make_resource(service_name: str, version: str) -> Resource:
    """Describe this process: our names, then what `OTEL_RESOURCE_ATTRIBUTES` and others say."""
    standard = OTELResourceDetector().detect().attributes
    attributes = {"service.version": version, **standard} if version else dict(standard)
    attributes["service.name"] = service_name or standard.get("service.name") or SERVICE_NAME
    return Resource.create(attributes)


class CountingExporter(SpanExporter):
    """Counts what an exporter takes and what it fails to deliver. Runs on the exporter's thread."""

    def __init__(self, exporter: SpanExporter, losses: SpanLosses) -> None:
        self._exporter = exporter
        self._losses = losses
        self._shutdown = threading.Lock()
        self.num_taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; count it as lost when that fails or raises."""
        self.num_taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self._losses.add("export_failed", len(spans))
            self._losses.report()
        return result

    def shutdown(self) -> None:
        """Stop, ending a retry that waits. Any thread; only the first call does something."""
        if self._shutdown.acquire(blocking=False):
            self._exporter.shutdown()


class BoundedSpanProcessor(SpanProcessor):
    """Hands ended spans to a batch processor, and counts those for which there is no room.

    I1  Never more than `max_queue_spans` wait. `on_end` is called on the event loop only, so one
        thread writes each of the two counters whose difference is what waits.
    I2  Every span that is handed over is either exported or counted as lost.
    """

    def __init__(self, exporter: SpanExporter, plan: TelemetryPlan, losses: SpanLosses) -> None:
        self._exporter = CountingExporter(exporter, losses)
        self._losses = losses
        self._max_waiting = plan.max_queue_spans
        self._num_accepted = 0
        self._is_closed = False
        self._batches: SpanProcessor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=plan.max_queue_spans,
            max_export_batch_size=plan.max_batch_spans,
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Take the span, or count it."""
        if not (span.context and span.context.trace_flags.sampled):
            return
        if self._is_closed:
            self._losses.add("shut_down", 1)
        elif self._num_accepted - self._exporter.num_taken >= self._max_waiting:
            self._losses.add("queue_full", 1)
        else:
            self._num_accepted += 1
            self._batches.on_end(span)

    def shutdown(self) -> None:
        """Send what waits, then stop. Blocks for as long as the exporter takes."""
        self._is_closed = True
        self._batches.shutdown()

    def abort(self) -> None:
        """End a `shutdown` that takes too long: what still waits is lost. Any other thread."""
        self._exporter.shutdown()


def _make_sampler(name: str, ratio: float) -> sampling.Sampler:
    roots: dict[str, sampling.Sampler] = {
        "always_on": sampling.ALWAYS_ON,
        "always_off": sampling.ALWAYS_OFF,
        "traceidratio": sampling.TraceIdRatioBased(ratio),
    }
    root = roots[name.removeprefix("parentbased_")]
    return sampling.ParentBased(root) if name.startswith("parentbased_") else root


def _make_span_exporter(plan: SignalPlan) -> SpanExporter:
    # Each protocol brings its own client library: import the one that is asked for.
    if plan.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as GrpcExporter,
        )

        headers = dict(plan.headers) if plan.headers else None
        return GrpcExporter(endpoint=plan.endpoint, headers=headers)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter as HttpExporter,
    )

    return HttpExporter(
        endpoint=plan.endpoint, headers=dict(plan.headers) if plan.headers else None
    )
