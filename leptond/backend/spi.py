"""The plug-in SPI: what an engine gives the daemon and what it may rely on.

Three lifetimes: `Backend` (process) → `Model` (weights) → session (one executor, one thread).
A plug-in is found through the entry-point group `leptond.backends`; the entry is a `Backend`.
It imports only `leptond.backend`, `.checkpoint`, `.memory`, `.types` and `.errors`.

I1  A session's verbs are called from one thread, its worker, except `BatchSession.interrupt`.
I2  A slot is a handle: the session may move what is behind it between calls.
I3  When `step` or `run` raises `BackendFault`, every slot is as it was before the call and the
    rows belong to the caller again. When it raises `BackendCrashed`, the session is dead.
I4  Batch-mates never change a row's answer beyond the tolerance that the model declares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from leptond.types import Task

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

API_VERSION = (1, 0)
"""(major, minor) of this interface. A plug-in of another major version is refused by name."""

FloatArray = npt.NDArray[np.float32]
Progress = Callable[[str, float], object]
"""`progress(stage, fraction)`: what a load is doing, 0.0 to 1.0; called on the loader thread."""


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
        options: the engine's own table of the configuration, such as `num_threads`.
    """

    directory: Path
    precision: str
    device: str = "cpu"
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
        max_batch_rows: most rows of one `run` (0: not a batch model).
        is_deterministic: whether a row's answer is the same in any company.
        ride_along_tokens: longest prompt chunk that is worth running together with decode
            rows; a longer one is better in a run of its own. Measured by the plug-in's author.
        is_cancellable: whether `interrupt` ends a running call early.
    """

    kind: SessionKind
    tasks: frozenset[Task]
    devices: tuple[str, ...]
    vocab_size: int = 0
    max_slots: int = 0
    max_context_tokens: int = 0
    max_batch_rows: int = 0
    is_deterministic: bool = True
    ride_along_tokens: int = 64
    is_streaming: bool = False
    is_cancellable: bool = False


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Size of one session. `num_slots` × `max_tokens` bounds its KV memory."""

    num_slots: int = 16
    max_tokens: int = 2048
    num_threads: int = 0  # 0: the engine's choice


@dataclass(frozen=True, slots=True, eq=False)
class RowPick:
    """How a row's logits are processed before its candidates are taken.

    Applied in this order: `l > 0 ? l / repetition : l * repetition`, `+ bias`, `/ temperature`.

    Attributes:
        temperature: > 0.
        repetition, bias: float32 `[vocab_size]`; None when off. Minus infinity masks a token.
    """

    temperature: float = 1.0
    repetition: FloatArray | None = None
    bias: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StepRow:
    """New tokens of one slot in one step: a prompt chunk, a decode token, or drafts.

    Attributes:
        slot: an open slot; at most one row per slot and step.
        token_ids: at least one token, appended to what the slot holds.
        num_logits: how many of the last positions want logits; 0 for a chunk that is not last.
        pick: the same for each wanted position of the row; None when raw logits will do.
    """

    slot: int
    token_ids: Sequence[int]
    num_logits: int = 1
    pick: RowPick | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """Answers of one step: one line per wanted position, row after row in the order given.

    Attributes:
        candidate_ids: int64 `[num_wanted, k]`, the k best processed logits, best first;
            k is the session's own (64, or the vocabulary when that is smaller).
        candidate_logits: float32 `[num_wanted, k]`, processed logits.
        log_normalizer: float32 `[num_wanted]`, logsumexp of all processed logits.
        raw_log_normalizer: float32 `[num_wanted]`, logsumexp of all raw logits.
        logits: float32 `[num_wanted, vocab_size]`, raw; a view that the next step overwrites.
    """

    candidate_ids: npt.NDArray[np.int64]
    candidate_logits: FloatArray
    log_normalizer: FloatArray
    raw_log_normalizer: FloatArray
    logits: FloatArray


@runtime_checkable
class StepSession(Protocol):
    """A decode loop over slots; one verb for prompts, decoding and drafts alike."""

    def open(self) -> int:
        """Take an empty slot. Raises `MemoryBudgetExceeded` when none is free."""
        ...

    def fork(self, source: int, length: int) -> int:
        """Take a slot that holds the first `length` tokens of `source`; no model run."""
        ...

    def truncate(self, slot: int, length: int) -> None:
        """Forget all but the first `length` tokens; no model run."""
        ...

    def close(self, slot: int) -> None:
        """Give a slot and its memory back."""
        ...

    def length(self, slot: int) -> int:
        """Tokens that the slot holds."""
        ...

    def step(self, rows: Sequence[StepRow]) -> StepResult:
        """Append each row's tokens to its slot and answer the wanted positions.

        Rows of any lengths may be mixed; the session cuts them into engine runs as it likes.
        Raises `InvalidRequest` before anything ran when a row breaks its contract,
        `BackendFault` (I3) or `BackendCrashed`. Mutates the slots of `rows` only.
        """
        ...

    def resident_bytes(self) -> int:
        """Memory that the slots hold now, in bytes."""
        ...

    def shutdown(self) -> None:
        """Free everything; idempotent."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class BatchRow:
    """One input of a whole call: token ids, or named tensors.

    Attributes:
        outputs: destination buffers by output name; the session writes there and nowhere else.
        options: the task's own options; rows of one call may be required to share them.
    """

    token_ids: Sequence[int] = ()
    tensors: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    outputs: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class EmittedChunk:
    """Part of a row's answer. `is_final` closes the row: exactly one per row, maybe empty."""

    token_ids: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    tensors: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    is_final: bool = False


@runtime_checkable
class BatchSession(Protocol):
    """Whole calls: encoders, translators, tensor models."""

    def run(self, batch: Sequence[BatchRow], emit: Callable[[int, EmittedChunk], bool]) -> None:
        """Answer every row through `emit(row_index, chunk)`.

        `emit` is called on the thread of `run`; False ends that row only. Raises
        `InvalidRequest` before anything ran, `BackendFault` or `BackendCrashed`; then the batch
        belongs to the caller again: rows without a chunk may be run again singly.
        """
        ...

    def interrupt(self) -> None:
        """End the running call as soon as the engine can; from any thread; idempotent."""
        ...

    def shutdown(self) -> None:
        """Free everything; idempotent."""
        ...


class Model(Protocol):
    """Loaded weights; sessions of one model share them."""

    @property
    def capabilities(self) -> Capabilities:
        """What this model does; constant."""
        ...

    def open_session(self, options: SessionOptions) -> StepSession | BatchSession:
        """A new executor. Called on the thread that will own it."""
        ...

    def close(self) -> None:
        """Free the weights; every session was shut down before. Idempotent."""
        ...


class Importer(Protocol):
    """Turns a checkpoint into the engine's own files."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that it can write; the first is its default."""
        ...

    def write(
        self, checkpoint: Any, directory: Path, precision: str, progress: Progress
    ) -> Mapping[str, Any]:
        """Write one variant into an empty directory; answer its facts, for `variant.toml`.

        `checkpoint` is a `leptond.checkpoint.Checkpoint` (the two packages are siblings and do
        not import each other). Raises `UnsupportedCapability` naming what it cannot take.
        """
        ...


class Backend(Protocol):
    """An engine in this process."""

    @property
    def name(self) -> str:
        """The engine's name in stores and configuration, such as `onnxruntime`."""
        ...

    @property
    def api_version(self) -> tuple[int, int]:
        """The `API_VERSION` that the plug-in was written against."""
        ...

    @property
    def importer(self) -> Importer | None:
        """How checkpoints become this engine's files; None when it only takes ready ones."""
        ...

    def describe(self) -> Mapping[str, str]:
        """Engine version, devices, instruction set: for people."""
        ...

    def estimate_bytes(self, source: ModelSource, options: SessionOptions) -> MemoryEstimate:
        """What loading would take; reads file sizes and metadata only."""
        ...

    def load(self, source: ModelSource, progress: Progress) -> Model:
        """Load weights; blocks; called on a loader thread.

        Raises `BackendUnavailable` when the device is absent, `UnsupportedCapability` for a
        precision that the device cannot take, `ModelFailed` when the files are bad.
        """
        ...
