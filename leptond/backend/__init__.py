"""Plug-in SPI, registry, conformance suite and the deterministic fake engine."""

from __future__ import annotations

from leptond.backend.spi import (
    API_VERSION,
    Backend,
    BatchRow,
    BatchSession,
    Capabilities,
    EmittedChunk,
    Importer,
    MemoryEstimate,
    Model,
    ModelSource,
    Progress,
    RowPick,
    SessionKind,
    SessionOptions,
    StepResult,
    StepRow,
    StepSession,
)

__all__ = [
    "API_VERSION",
    "Backend",
    "BatchRow",
    "BatchSession",
    "Capabilities",
    "EmittedChunk",
    "Importer",
    "MemoryEstimate",
    "Model",
    "ModelSource",
    "Progress",
    "RowPick",
    "SessionKind",
    "SessionOptions",
    "StepResult",
    "StepRow",
    "StepSession",
]
