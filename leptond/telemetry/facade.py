"""What the daemon uses of telemetry: one object per process, one `Call` per RPC.

The classes here are also what runs when telemetry is off: they write the log line of each request
and record nothing; no part of OpenTelemetry is imported. `Telemetry.configure` returns the
recording kind (`leptond.telemetry.otel`) when the plan has something to record for.

Everything here runs on the event loop, once per call or per inference and never per token. Spans
are made when an inference has ended, from the `Phase`s that the worker noted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from leptond.errors import InvariantViolation
from leptond.telemetry.fields import Fields
from leptond.telemetry.options import TelemetryOptions
from leptond.telemetry.plan import make_plan
from leptond.telemetry.record import InferenceRecord
from leptond.telemetry.totals import InferenceTotals, to_ms
from leptond.types import ModelLoad

__all__ = ["Call", "Metadata", "ModelLoads", "Telemetry"]

logger = logging.getLogger("leptond.request")

Metadata = Iterable[tuple[str, str | bytes]]
"""Metadata of a call as gRPC hands it over: lower-case keys; `-bin` values are bytes."""

ModelLoads = Callable[[], Mapping[str, ModelLoad]]
"""The load of every loaded model by its name; called on an exporter's thread."""

# Health checks and reflection come every few seconds and tell nothing when they go well.
_QUIET_SERVICES: Final = "grpc."


class Call:
    """One RPC, from its arrival to its status.

    Args:
        method: `package.Service/Method`, as the server knows it.
        request_id: the daemon's own unique id of the call.
    """

    __slots__ = ("_is_over", "_label", "_started", "_totals", "method", "request_id")

    def __init__(self, method: str, request_id: str) -> None:
        self.method = method
        self.request_id = request_id
        self._started = time.monotonic()
        self._totals = InferenceTotals()
        self._label: str | None = None
        self._is_over = False

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits for the log and the trailing metadata; None without a trace."""
        return None

    def set_label(self, label: str) -> None:
        """Note the caller's own `request_id`: any text; it is only ever logged and traced."""
        self._label = label or None

    def record_inference(self, record: InferenceRecord) -> None:
        """Record an inference of this call that has ended; a multiplexed call has many."""
        self._totals.add(record)

    def end(self, status: str, error: str | None = None) -> None:
        """Close the call and write its log line. Exactly once.

        Args:
            status: name of the gRPC status, such as `OK`.
            error: stable reason (`leptond.errors.ErrorCode`) when it is not `OK`.
        """
        if self._is_over:
            raise InvariantViolation(f"call {self.request_id} ended twice")
        self._is_over = True
        is_quiet = status == "OK" and self.method.startswith(_QUIET_SERVICES)
        level = logging.DEBUG if is_quiet else logging.INFO
        if logger.isEnabledFor(level):
            fields = Fields(
                method=self.method,
                status=status,
                error=error,
                duration_ms=to_ms(time.monotonic() - self._started),
                **self._totals.describe(),
                label=self._label,
                request_id=self.request_id,
                trace_id=self.trace_id,
            )
            logger.log(level, "request %s", fields)


class Telemetry:
    """Telemetry that is off: calls are logged, nothing is recorded, nothing runs."""

    @staticmethod
    def configure(
        options: TelemetryOptions, environ: Mapping[str, str], *, version: str = ""
    ) -> Telemetry:
        """Return the telemetry that the options and the `OTEL_*` variables ask for.

        Starts the exporters' threads, if any. Raises `InvalidTelemetryOption`, and `OSError` when
        the Prometheus address cannot be bound.

        Args:
            options: what the operator wrote.
            environ: `os.environ`: the SDK reads its finer settings from there by itself.
            version: of leptond, for `service.version`.
        """
        plan = make_plan(options, environ)
        if not plan.is_on:
            return Telemetry()
        from leptond.telemetry.otel import OtelTelemetry  # noqa: PLC0415 - off means not imported

        return OtelTelemetry(plan, version)

    @property
    def is_on(self) -> bool:
        """Whether anything is recorded."""
        return False

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Where Prometheus finds the metrics, if it may; the port is the one that was bound."""
        return None

    @property
    def lost_spans(self) -> Mapping[str, int]:
        """Spans that no collector got, by reason."""
        return {}

    def start_call(
        self,
        method: str,
        metadata: Metadata = (),
        *,
        request_id: str,
        peer: str = "",
        is_known: bool = True,
    ) -> Call:
        """Note that an RPC arrived.

        Args:
            method: `/package.Service/Method` or without the first slash.
            metadata: the caller's; its trace context is honoured when telemetry is on.
            request_id: the daemon's own unique id of the call.
            peer: as gRPC names it (`ipv4:127.0.0.1:40000`, `unix:`).
            is_known: False for a method that the server does not have.
        """
        del metadata, peer, is_known
        return Call(method.removeprefix("/"), request_id)

    def observe_models(self, loads: ModelLoads) -> None:
        """Report the load of each model through gauges, read whenever metrics are collected."""

    def shutdown(self, timeout_s: float = 3.0) -> bool:
        """Send what is left and stop. Blocks, `timeout_s` at most; never on the event loop.

        Returns False when a collector was too slow; what it did not get is counted as lost.
        """
        del timeout_s
        return True
