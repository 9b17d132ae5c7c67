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
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from leptond.backend.declarations import (
    Capabilities,
    MemoryEstimate,
    ModelSource,
    SessionOptions,
)
from leptond.backend.rows import BatchRow, EmittedChunk, StepResult, StepRow

__all__ = [
    "API_VERSION",
    "Backend",
    "BatchSession",
    "Importer",
    "Model",
    "Progress",
    "ReadyImporter",
    "StepSession",
]

API_VERSION = (1, 0)
"""(major, minor) of this interface. A plug-in of another major version is refused by name."""

Progress = Callable[[str, float], object]
"""`progress(stage, fraction)`: what a load is doing, 0.0 to 1.0; called on the loader thread."""


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


@runtime_checkable
class ReadyImporter(Importer, Protocol):
    """An importer that also takes over models which are in the engine's own format already.

    Such files say nothing of a tokenizer, so it comes beside them.
    """

    def is_ready(self, source: Path) -> bool:
        """Whether `source`, a file or a directory, looks like the engine's own format."""
        ...

    def files_beside(self, source: Path) -> Sequence[Path]:
        """Files outside a ready `source` that belong to it: weights that a graph names.

        Raises `InvalidRequest` when one is missing.
        """
        ...

    def import_ready(
        self, source: Path, tokenizer: Path, directory: Path, *, pooling: str | None = None
    ) -> tuple[Mapping[str, Any], Any]:
        """Copy a model into the empty `directory` of a variant.

        Args:
            source: the file or the directory; need not be ready.
            tokenizer: the model's `tokenizer.json`.
            directory: of the variant.
            pooling: of an encoder: `mean`, `cls` or `last`; None is the importer's choice.

        Returns:
            As `write`, with `precision`; and the `leptond.checkpoint.TextAssets` of the version.

        Raises:
            InvalidRequest: it is not in the engine's format, or the tokenizer is not the model's.
            UnsupportedCapability: a kind of model or a type that is not served.
        """
        ...

    def explain(self, source: Path) -> str:
        """How `source`, which nobody here can read, becomes ready: a sentence for people."""
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
