"""Instruments, span helpers and log set-up; the only package that imports OpenTelemetry.

`Telemetry.configure(options, os.environ)` once per process, `Telemetry.start_call` once per RPC.
"""

from leptond.telemetry.facade import Call, Metadata, ModelLoads, Telemetry
from leptond.telemetry.fields import Fields
from leptond.telemetry.logs import bind_request, set_log_level, setup_logging
from leptond.telemetry.options import InvalidTelemetryOption, LogOptions, TelemetryOptions
from leptond.telemetry.plan import TelemetryPlan, make_plan
from leptond.telemetry.record import (
    CHAT,
    CLASSIFY,
    EMBEDDINGS,
    RERANK,
    SCORE,
    TEXT_COMPLETION,
    TRANSLATE,
    InferenceRecord,
)

__all__ = [
    "CHAT",
    "CLASSIFY",
    "EMBEDDINGS",
    "RERANK",
    "SCORE",
    "TEXT_COMPLETION",
    "TRANSLATE",
    "Call",
    "Fields",
    "InferenceRecord",
    "InvalidTelemetryOption",
    "LogOptions",
    "Metadata",
    "ModelLoads",
    "Telemetry",
    "TelemetryOptions",
    "TelemetryPlan",
    "bind_request",
    "make_plan",
    "set_log_level",
    "setup_logging",
]
