"""The meter provider and its readers: OTLP pushes, Prometheus fetches."""

from __future__ import annotations

import threading
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

from leptond.telemetry.plan import SignalPlan, TelemetryPlan

__all__ = ["Metering"]


class Metering:
    """Owns the meter provider, its exporter and the Prometheus server.

    Raises `OSError` when the Prometheus address cannot be bound.
    """

    def __init__(self, plan: TelemetryPlan, resource: Resource) -> None:
        self._exporter = _make_metric_exporter(plan.metrics) if plan.metrics else None
        self._page = PrometheusPage(*plan.metrics_listen) if plan.metrics_listen else None
        readers: list[MetricReader] = []
        if self._exporter:
            readers.append(PeriodicExportingMetricReader(self._exporter))
        if self._page:
            readers.append(self._page.reader)
        self.provider = MeterProvider(
            metric_readers=readers, resource=resource, shutdown_on_exit=False
        )

    @property
    def page_address(self) -> tuple[str, int] | None:
        """Where Prometheus finds the metrics; the port is the one that was bound."""
        return self._page.address if self._page else None

    def shutdown(self, timeout_s: float) -> None:
        """Push a last time and stop. Blocks, `timeout_s` at most."""
        if self._page:
            self._page.close()
        self.provider.shutdown(timeout_millis=timeout_s * 1e3)

    def abort(self) -> None:
        """End a `shutdown` that takes too long. Any other thread."""
        if self._exporter:
            self._exporter.shutdown()


class PrometheusPage:
    """`http://host:port/metrics`, served by a thread of its own."""

    def __init__(self, host: str, port: int) -> None:
        # Imported here: only who asks for the page needs the library.
        from opentelemetry.exporter.prometheus import PrometheusMetricReader  # noqa: PLC0415
        from prometheus_client import start_http_server  # noqa: PLC0415

        self._server: Any
        self._thread: threading.Thread
        try:
            self._server, self._thread = start_http_server(port, addr=host)
        except OSError as error:
            what = f"cannot serve metrics on {host}:{port}: {error.strerror}"
            raise OSError(error.errno, what) from error
        self.reader: MetricReader = PrometheusMetricReader()
        self.address: tuple[str, int] = self._server.server_address[:2]

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _make_metric_exporter(plan: SignalPlan) -> MetricExporter:
    headers = dict(plan.headers) if plan.headers else None
    if plan.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # noqa: PLC0415
            OTLPMetricExporter as GrpcExporter,
        )

        return GrpcExporter(endpoint=plan.endpoint, headers=headers)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415
        OTLPMetricExporter as HttpExporter,
    )

    return HttpExporter(endpoint=plan.endpoint, headers=headers)
