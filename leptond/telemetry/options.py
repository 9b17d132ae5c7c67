"""What an operator can say about telemetry and logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "EXPORTERS",
    "PROTOCOLS",
    "SAMPLERS",
    "InvalidTelemetryOption",
    "LogOptions",
    "TelemetryOptions",
]

EXPORTERS: Final = ("auto", "otlp", "none")
PROTOCOLS: Final = ("grpc", "http/protobuf")
SAMPLERS: Final = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)


class InvalidTelemetryOption(ValueError):
    """A setting of telemetry that cannot be honoured; the start must stop.

    Args:
        name: the environment variable, or the key of the options (`telemetry.sampler`).
        allowed: what would be right, in words.
    """

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"{name} = {value!r}: must be {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class TelemetryOptions:
    """Options of telemetry; each empty value leaves the matter to the `OTEL_*` variables.

    Attributes:
        exporter: `auto` (see `leptond.telemetry.plan`), `otlp`, or `none` for no push.
        endpoint: base URL of the collector for spans and metrics, as `OTEL_EXPORTER_OTLP_ENDPOINT`.
        protocol: `grpc` or `http/protobuf`.
        headers: sent with every export; secret.
        sampler: one of `SAMPLERS`.
        sampler_ratio: share of traces that a ratio sampler keeps, 0 to 1.
        service_name: `service.name` of the resource; `leptond` when nobody says else.
        metrics_listen: `host:port` of a Prometheus endpoint; empty for none.
    """

    exporter: str = "auto"
    endpoint: str = ""
    protocol: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    sampler: str = ""
    sampler_ratio: float | None = None
    service_name: str = ""
    metrics_listen: str = ""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Options of the log.

    Attributes:
        format: `text`, `json`, or `auto`: text on a terminal, JSON everywhere else.
        level: `debug`, `info`, `warning` or `error`.
    """

    format: str = "auto"
    level: str = "info"
