"""The configuration: every setting with its default, unit, range and meaning. The only parser.

`docs/configuration.md` is made from here (`leptond.config.reference`), so a description says what
an operator wants to know: the effect of a higher and a lower value, and what 0 means.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from leptond.config.address import Address
from leptond.config.section import Section, setting
from leptond.telemetry import LogOptions, TelemetryOptions

__all__ = [
    "Config",
    "LimitsSection",
    "LogSection",
    "ModelSettings",
    "ModelsSection",
    "SchedulerSection",
    "ServerSection",
    "TelemetrySection",
]

_DAY_S = 86_400.0
_MAX_BYTES = 1 << 50
_MAX_COUNT = 1 << 20
# gRPC counts a message's bytes in a signed 32-bit number.
_MAX_MESSAGE_BYTES = (1 << 31) - 1


AddressText = Annotated[str, AfterValidator(lambda text: str(Address.parse(text)))]
StorePath = Annotated[Path, Field(strict=False)]


class ServerSection(Section):
    """Addresses and connections."""

    listen: tuple[AddressText, ...] = setting(
        ("127.0.0.1:8600",),
        "Addresses for everybody: `host:port`, `[ipv6]:port` or `unix:/path`. Port 0 picks a free "
        "one. The group of the daemon's user may connect to a Unix socket (mode 0660).",
        flag="--listen",
    )
    admin_listen: tuple[AddressText, ...] = setting(
        (),
        "Addresses that also answer administrative methods. Empty: the addresses of `listen` when "
        "all of them are loopback TCP, else the socket `admin.sock` in the runtime directory, to "
        "which only the daemon's own user may connect (mode 0600).",
        flag="--admin-listen",
    )
    insecure: bool = setting(
        default=False,
        description="Allow TCP addresses beyond loopback although nothing protects them: whoever "
        "reaches the address can use the daemon.",
        flag="--insecure",
    )
    grace_s: float = setting(
        30.0,
        "How long calls that run may take once the daemon was told to stop. Keep it below the "
        "`TimeoutStopSec` of the unit.",
        flag="--grace",
        ge=0,
        le=3_600,
    )
    max_message_bytes: int = setting(
        64 << 20,
        "Longest message, either way. Clients have a limit of their own, 4 MiB by default.",
        ge=64 << 10,
        le=_MAX_MESSAGE_BYTES,
    )
    max_concurrent_streams: int = setting(
        0, "Most open calls of one connection; 0 is gRPC's own limit.", ge=0, le=_MAX_COUNT
    )
    keepalive_time_s: float = setting(
        60.0,
        "Silence after which a peer is asked whether it still lives; 0 never asks.",
        ge=0,
        le=_DAY_S,
    )
    keepalive_timeout_s: float = setting(
        20.0, "How long it may take to answer before its connection ends.", ge=0.1, le=_DAY_S
    )
    min_ping_interval_s: float = setting(
        10.0,
        "How often clients may ping, with and without open calls. A client that does it more often "
        "is cut off.",
        ge=0,
        le=_DAY_S,
    )
    max_connection_age_s: float = setting(
        0.0,
        "Age at which a connection is asked to be made anew, so that load spreads to new replicas; "
        "0 is never.",
        ge=0,
        le=365 * _DAY_S,
    )
    max_connection_age_grace_s: float = setting(
        60.0, "What the calls of such a connection may still take.", ge=0, le=365 * _DAY_S
    )


class ModelSettings(Section):
    """What one model has of its own; a key that is not set is that of `[models]`."""

    device: str | None = setting(None, "Where it runs.", has_variable=False)
    num_slots: int | None = setting(
        None, "Texts that it generates at once.", has_variable=False, ge=1, le=4_096
    )
    max_context_tokens: int | None = setting(
        None, "Longest prompt and answer together.", has_variable=False, ge=0, le=1 << 24
    )
    kv_bytes: int | None = setting(
        None, "Memory for its keys and values.", has_variable=False, ge=0, le=_MAX_BYTES
    )


class ModelsSection(Section):
    """Which models there are, and what they may take."""

    stores: tuple[StorePath, ...] = setting(
        (),
        "Directories of models; imports go into the first. Empty: `$STATE_DIRECTORY`, else "
        "`$XDG_DATA_HOME/leptond`, else `~/.local/share/leptond`.",
        flag="--store",
    )
    preload: tuple[str, ...] = setting(
        (),
        "Models that are loaded before the daemon reports that it is ready: `name` or "
        "`name:variant`.",
        flag="--preload",
    )
    load_policy: Literal["on_demand", "manual"] = setting(
        "on_demand",
        "`on_demand` loads a model when a request first names it, which waits for it within its "
        "deadline; `manual` refuses the request until an administrator loads the model.",
    )
    device: str = setting("cpu", "Where models run: `cpu`, `cuda:0`.")
    num_slots: int = setting(
        16,
        "Texts that one model generates at once. More raises throughput and memory, and makes each "
        "text slower under load.",
        ge=1,
        le=4_096,
    )
    max_context_tokens: int = setting(
        0, "Longest prompt and answer together; 0 is the model's own limit.", ge=0, le=1 << 24
    )
    kv_bytes: int = setting(
        0,
        "Memory for keys and values of one model; 0 is room for every slot in full, at most a "
        "quarter of `memory_bytes`. When it runs short, texts are preempted and computed again.",
        ge=0,
        le=_MAX_BYTES,
    )
    memory_bytes: int = setting(
        0,
        "Budget of all models together; a load that would exceed it is refused. 0 is what the "
        "machine and the control group leave free at the start.",
        ge=0,
        le=_MAX_BYTES,
    )
    num_cores: int = setting(
        0,
        "Cores that all engines may keep busy together; 0 is all that affinity and control group "
        "allow.",
        ge=0,
        le=4_096,
    )
    per_model: dict[str, ModelSettings] = setting(
        {},
        'Tables for single models, `[models.per_model."name"]` or `"name:variant"`, which wins.',
        has_variable=False,
    )

    def settings_for(self, name: str) -> ModelSettings:
        """Return what applies to `model:variant`: its own table, its model's, then this section.

        Every key of the answer is set.
        """
        model, _, variant = name.partition(":")
        tables = [self.per_model.get(model)]
        if variant:
            tables.append(self.per_model.get(name))
        values: dict[str, Any] = {key: getattr(self, key) for key in ModelSettings.model_fields}
        for table in tables:
            if table is not None:
                values |= table.model_dump(exclude_none=True)
        return ModelSettings(**values)


class SchedulerSection(Section):
    """Queue and steps of each model."""

    max_running: int = setting(
        0, "Requests that hold a slot at once; 0 is every slot.", ge=0, le=4_096
    )
    max_queued: int = setting(
        256,
        "Requests that may wait for a model besides those that could run; further ones are refused "
        "with RESOURCE_EXHAUSTED. 0 lets none wait.",
        ge=0,
        le=_MAX_COUNT,
    )
    step_token_budget: int = setting(
        512,
        "Most new tokens of one step, prompts and running texts together. More prefills faster; "
        "less keeps the memory of a run small.",
        ge=1,
        le=1 << 20,
    )
    prefill_chunk_tokens: int = setting(
        256,
        "Most prompt tokens of a step in which running texts also get their next token: how long a "
        "prompt makes them stall.",
        ge=1,
        le=1 << 20,
    )
    ride_along_tokens: int = setting(
        0,
        "Rows share a run of the engine when their lengths differ by less than this; 0 takes what "
        "the engine declares.",
        ge=0,
        le=1 << 20,
    )
    max_kv_tokens: int = setting(
        0,
        "Most tokens in all slots of a model together; 0 is what the session has room for.",
        ge=0,
        le=1 << 32,
    )
    batch_token_budget: int = setting(
        4_096,
        "Most tokens of one run of a model that answers in whole calls, padding included. More is "
        "faster until the run leaves the processor's caches; less lets urgent inputs in sooner.",
        ge=1,
        le=1 << 20,
    )
    patience_s: float = setting(
        60.0,
        "A request without a deadline is ordered as if it had to start within so many seconds.",
        ge=0,
        le=_DAY_S,
    )
    priority_step_s: float = setting(
        10.0, "Seconds of waiting that one level of priority is worth.", ge=0, le=_DAY_S
    )
    max_priority: int = setting(
        10, "Priorities count at most this much, up and down.", ge=0, le=1_000
    )


class LimitsSection(Section):
    """Bounds of a single request."""

    default_max_tokens: int = setting(
        1_024,
        "Most tokens of an answer whose request sets no `max_tokens`; it ends with the reason "
        "`length`.",
        ge=1,
        le=1 << 24,
    )
    max_stop_strings: int = setting(16, "Stop strings of one request.", ge=0, le=1_024)
    max_stop_bytes: int = setting(
        1_024, "Length of one stop string in bytes of UTF-8.", ge=1, le=1 << 20
    )
    max_messages: int = setting(10_000, "Messages of one chat.", ge=1, le=_MAX_COUNT)
    slow_reader_s: float = setting(
        60.0,
        "How long a message may wait to be read before its call ends. A slow reader never holds up "
        "other calls.",
        ge=1,
        le=_DAY_S,
    )


class TelemetrySection(Section):
    """Traces and metrics; an empty value leaves the matter to the standard `OTEL_*` variables."""

    exporter: Literal["auto", "otlp", "none"] = setting(
        "auto",
        "`auto` exports when `endpoint` or an `OTEL_*` variable names a collector; `otlp` exports "
        "in any case, `none` pushes nothing.",
    )
    endpoint: str = setting(
        "",
        "Base URL of an OTLP collector for spans and metrics, such as `http://localhost:4317`.",
        flag="--otlp-endpoint",
    )
    protocol: Literal["", "grpc", "http/protobuf"] = setting(
        "", "How to speak to the collector; `grpc` when nobody says else."
    )
    headers: dict[str, str] = setting(
        {},
        "Sent with every export. Better: `OTEL_EXPORTER_OTLP_HEADERS` from a protected file.",
        is_secret=True,
        has_variable=False,
    )
    sampler: Literal[
        "",
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = setting("", "Which traces are kept; `parentbased_always_on` when nobody says else.")
    sampler_ratio: float | None = setting(
        None, "Share of the traces that a ratio sampler keeps.", ge=0, le=1
    )
    service_name: str = setting("", "`service.name` of this daemon; `leptond` by default.")
    metrics_listen: str = setting(
        "",
        "`host:port` at which Prometheus finds the metrics (path `/metrics`); empty for none. The "
        "page needs no credentials and holds no text of any caller.",
        flag="--metrics-listen",
    )

    def to_options(self) -> TelemetryOptions:
        """Return the section as `leptond.telemetry` takes it."""
        return TelemetryOptions(**self.model_dump())


class LogSection(Section):
    """The log, on stderr."""

    format: Literal["auto", "json", "text"] = setting(
        "auto", "`auto` writes text on a terminal and JSON everywhere else.", flag="--log-format"
    )
    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "The least important lines to write.", flag="--log-level"
    )

    def to_options(self) -> LogOptions:
        """Return the section as `leptond.telemetry` takes it."""
        return LogOptions(**self.model_dump())


class Config(Section):
    """The whole of `leptond.toml`."""

    server: ServerSection = ServerSection()
    models: ModelsSection = ModelsSection()
    scheduler: SchedulerSection = SchedulerSection()
    limits: LimitsSection = LimitsSection()
    telemetry: TelemetrySection = TelemetrySection()
    log: LogSection = LogSection()
    backend: dict[str, dict[str, Any]] = Field(
        default={},
        description="Tables of the engines, `[backend.onnxruntime]`; each engine checks its own.",
    )
