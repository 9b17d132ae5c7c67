"""What the options and the `OTEL_*` variables come to.

`make_plan` is the one place that decides whether anything is exported, where to and how. It reads
the options and the standard `OTEL_*` variables and nothing else, so `check-config` can run it too.

Telemetry is off unless one of these asks for it:

* a non-empty `endpoint`, or `exporter = "otlp"`, in the options;
* a non-empty `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` (spans only) or
  `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` (metrics only);
* `otlp` in `OTEL_TRACES_EXPORTER` (spans only) or in `OTEL_METRICS_EXPORTER` (metrics only);
* a non-empty `metrics_listen` (metrics only, for Prometheus to fetch).

`OTEL_SDK_DISABLED=true` turns all of it off; `none` as exporter turns off what is pushed. The
options win over the variables: they were written for this daemon, the variables often for all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from leptond.telemetry.options import (
    EXPORTERS,
    PROTOCOLS,
    SAMPLERS,
    InvalidTelemetryOption,
    TelemetryOptions,
)

__all__ = ["SignalPlan", "TelemetryPlan", "make_plan"]

Signal = Literal["traces", "metrics"]

# Defaults of the OpenTelemetry specification (sdk-environment-variables, protocol/exporter). The
# protocol is the Python SDK's own default.
_DEFAULT_PROTOCOL: Final = "grpc"
_DEFAULT_ENDPOINTS: Final = {
    "grpc": "http://localhost:4317",
    "http/protobuf": "http://localhost:4318",
}
_DEFAULT_SAMPLER: Final = "parentbased_always_on"
_DEFAULT_QUEUE_SPANS: Final = 2048
_DEFAULT_BATCH_SPANS: Final = 512
# The SDK reads these from the process's environment; a value that it cannot use is refused here.
_POSITIVE_NUMBERS: Final = (
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_METRIC_EXPORT_TIMEOUT",
)
_HTTP_URL: Final = re.compile(r"https?://[^/\s]+(/\S*)?")


@dataclass(frozen=True, slots=True)
class SignalPlan:
    """Where one signal goes.

    Attributes:
        endpoint: complete: for HTTP with the signal's path.
        headers: None when the SDK shall read `OTEL_EXPORTER_OTLP_HEADERS` itself.
    """

    endpoint: str
    protocol: str
    headers: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class TelemetryPlan:
    """What telemetry will do; None or empty means that part is off."""

    traces: SignalPlan | None = None
    metrics: SignalPlan | None = None
    metrics_listen: tuple[str, int] | None = None
    sampler: str = _DEFAULT_SAMPLER
    sampler_ratio: float = 1.0
    service_name: str = ""
    max_queue_spans: int = _DEFAULT_QUEUE_SPANS
    max_batch_spans: int = _DEFAULT_BATCH_SPANS

    @property
    def is_on(self) -> bool:
        """Whether there is anything to record for."""
        return bool(self.traces or self.metrics or self.metrics_listen)


def make_plan(options: TelemetryOptions, environ: Mapping[str, str]) -> TelemetryPlan:
    """Decide what is exported, where to and how. Raises `InvalidTelemetryOption`.

    Args:
        options: what the operator wrote.
        environ: the process's environment. The SDK reads its finer settings (`OTEL_BSP_*`,
            certificates, timeouts, headers, resource attributes) from there by itself.
    """
    environ = {name: value.strip() for name, value in environ.items() if name.startswith("OTEL_")}
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return TelemetryPlan()
    plan = TelemetryPlan(
        traces=_plan_signal("traces", options, environ),
        metrics=_plan_signal("metrics", options, environ),
        metrics_listen=_parse_listen(options.metrics_listen),
    )
    if not plan.is_on:
        return plan
    for name in _POSITIVE_NUMBERS:
        _read_number(environ, name, default=1.0, is_allowed=lambda v: v > 0, allowed="above 0")
    sampler, ratio = _choose_sampler(options, environ)
    max_queue = _read_count(environ, "OTEL_BSP_MAX_QUEUE_SIZE", _DEFAULT_QUEUE_SPANS, 1 << 20)
    max_batch = _read_count(
        environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", min(_DEFAULT_BATCH_SPANS, max_queue), max_queue
    )
    return replace(
        plan,
        sampler=sampler,
        sampler_ratio=ratio,
        service_name=options.service_name,
        max_queue_spans=max_queue,
        max_batch_spans=max_batch,
    )


def _plan_signal(
    signal: Signal, options: TelemetryOptions, environ: Mapping[str, str]
) -> SignalPlan | None:
    own_endpoint = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    own_protocol = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL"
    if not _is_pushed(signal, options, environ, own_endpoint):
        return None
    protocol_name, protocol = _first(
        ("telemetry.protocol", options.protocol),
        *_named(environ, own_protocol, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ("", _DEFAULT_PROTOCOL),
    )
    if protocol not in PROTOCOLS:
        raise InvalidTelemetryOption(protocol_name, protocol, f"one of {', '.join(PROTOCOLS)}")
    endpoint_name, endpoint = _first(
        ("telemetry.endpoint", options.endpoint),
        *_named(environ, own_endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("", _DEFAULT_ENDPOINTS[protocol]),
    )
    if protocol == "http/protobuf":
        if not _HTTP_URL.fullmatch(endpoint):
            raise InvalidTelemetryOption(
                endpoint_name, endpoint, "a URL that starts with http:// or https://"
            )
        if endpoint_name != own_endpoint:  # a base URL; the signal's own is complete
            endpoint = f"{endpoint.rstrip('/')}/v1/{signal}"
    return SignalPlan(endpoint, protocol, dict(options.headers) or None)


def _is_pushed(
    signal: Signal, options: TelemetryOptions, environ: Mapping[str, str], own_endpoint: str
) -> bool:
    if options.exporter not in EXPORTERS:
        raise InvalidTelemetryOption(
            "telemetry.exporter", options.exporter, f"one of {', '.join(EXPORTERS)}"
        )
    if options.exporter != "auto":
        return options.exporter == "otlp"
    if options.endpoint:
        return True
    name = f"OTEL_{signal.upper()}_EXPORTER"
    exporters = {part.strip() for part in environ.get(name, "").split(",")} - {""}
    if unknown := exporters - {"otlp", "none"}:
        raise InvalidTelemetryOption(name, min(unknown), "otlp or none")
    if exporters:
        return "otlp" in exporters
    return bool(environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environ.get(own_endpoint))


def _choose_sampler(options: TelemetryOptions, environ: Mapping[str, str]) -> tuple[str, float]:
    name, sampler = _first(
        ("telemetry.sampler", options.sampler),
        *_named(environ, "OTEL_TRACES_SAMPLER"),
        ("", _DEFAULT_SAMPLER),
    )
    sampler = sampler.lower()
    if sampler not in SAMPLERS:
        raise InvalidTelemetryOption(name, sampler, f"one of {', '.join(SAMPLERS)}")
    if options.sampler_ratio is not None:
        return sampler, options.sampler_ratio
    if not sampler.endswith("ratio"):
        return sampler, 1.0  # the argument belongs to samplers that leptond does not have
    ratio = _read_number(
        environ,
        "OTEL_TRACES_SAMPLER_ARG",
        default=1.0,
        is_allowed=lambda value: 0 <= value <= 1,
        allowed="from 0 to 1",
    )
    return sampler, ratio


def _parse_listen(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - TCP
        raise InvalidTelemetryOption("telemetry.metrics_listen", text, "host:port")
    return host, int(port)


def _first(*candidates: tuple[str, str]) -> tuple[str, str]:
    return next((name, value) for name, value in candidates if value)


def _named(environ: Mapping[str, str], *names: str) -> list[tuple[str, str]]:
    return [(name, environ.get(name, "")) for name in names]


def _read_number(
    environ: Mapping[str, str],
    name: str,
    *,
    default: float,
    is_allowed: Callable[[float], bool],
    allowed: str,
) -> float:
    text = environ.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not is_allowed(value):
        raise InvalidTelemetryOption(name, text, f"a number {allowed}")
    return value


def _read_count(environ: Mapping[str, str], name: str, default: int, maximum: int) -> int:
    return int(
        _read_number(
            environ,
            name,
            default=default,
            is_allowed=lambda value: value == int(value) and 1 <= value <= maximum,
            allowed=f"without a fraction from 1 to {maximum}",
        )
    )
