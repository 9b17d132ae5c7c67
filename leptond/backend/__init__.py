"""Plug-in SPI, registry, conformance suite and the deterministic fake engine."""

from __future__ import annotations

from leptond.backend.declarations import (
    SAMPLING_OPTIONS,
    Capabilities,
    MemoryEstimate,
    ModelSource,
    SessionKind,
    SessionOptions,
)
from leptond.backend.rows import BatchRow, EmittedChunk, RowPick, StepResult, StepRow
from leptond.backend.spi import (
    API_VERSION,
    Backend,
    BatchSession,
    Importer,
    Model,
    Progress,
    ReadyImporter,
    StepSession,
)

__all__ = [
    "API_VERSION",
    "SAMPLING_OPTIONS",
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
    "ReadyImporter",
    "RowPick",
    "SessionKind",
    "SessionOptions",
    "StepResult",
    "StepRow",
    "StepSession",
]
