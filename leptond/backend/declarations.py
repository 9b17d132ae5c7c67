"""What a model and its session declare and are told, before anything runs.

Values only; see `leptond.backend.spi` for who gives them to whom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from leptond.types import SamplingParams, Task

__all__ = [
    "SAMPLING_OPTIONS",
    "Capabilities",
    "MemoryEstimate",
    "ModelSource",
    "SessionKind",
    "SessionOptions",
]

SAMPLING_OPTIONS = frozenset(
    {*(field.name for field in fields(SamplingParams)), "logprobs", "min_tokens", "top_logprobs"}
)
"""Everything that a request may ask of the choice of tokens, by its name in `leptond.types`."""


class SessionKind(StrEnum):
    """STEP: an open decode loop, one token position at a time. BATCH: whole calls."""

    STEP = "step"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A variant on disk, as the store found it.

    Attributes:
        directory: holds the engine's files; read-only for the plug-in.
        device: `cpu`, `cuda:0`, ...; a device the engine lacks is `BackendUnavailable`.
        num_cores: cores that the daemon has for all engines together; 0 is all of the process's.
        options: the engine's own table of the configuration, such as `num_threads`.
    """

    directory: Path
    precision: str
    device: str = "cpu"
    num_cores: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes that a model will take: weights, and per slot of a session at full length."""

    weights_bytes: int
    slot_bytes: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a loaded model does; declared, never guessed.

    Attributes:
        max_slots: most slots of one session (0: not a step model).
        max_context_tokens: longest sequence of a slot or of a batch row.
        max_answer_tokens: longest answer of a model whose decoder has a context of its own, as
            sequence-to-sequence models; 0 of others: prompt and answer share the context.
        max_batch_rows: most rows of one `run` (0: not a batch model).
        is_deterministic: whether a row's answer is the same in any company.
        ride_along_tokens: longest prompt chunk that is worth running together with decode
            rows; a longer one is better in a run of its own. Measured by the plug-in's author.
        is_cancellable: whether `interrupt` ends a running call early.
        sampling_options: which of `SAMPLING_OPTIONS` a model of whole calls honours; any other
            value than the default of an option that is not among them is refused by name. Of a
            step model all are: tokens are chosen from its logits.
    """

    kind: SessionKind
    tasks: frozenset[Task]
    devices: tuple[str, ...]
    vocab_size: int = 0
    max_slots: int = 0
    max_context_tokens: int = 0
    max_answer_tokens: int = 0
    max_batch_rows: int = 0
    is_deterministic: bool = True
    ride_along_tokens: int = 64
    is_streaming: bool = False
    is_cancellable: bool = False
    sampling_options: frozenset[str] = SAMPLING_OPTIONS


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Size of one session. `num_slots` × `max_tokens` bounds its KV memory."""

    num_slots: int = 16
    max_tokens: int = 2048
    num_threads: int = 0  # 0: the engine's choice
