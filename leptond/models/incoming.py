"""What is imported: a checkpoint that an engine's importer writes, or an engine's ready files.

Chooses the engine where the operator did not: the recipe's, the one whose format the source is in,
or the best for the kind of checkpoint. Runs on the command line's thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from leptond.backend import Backend, Importer, Progress, ReadyImporter
from leptond.checkpoint import (
    Checkpoint,
    EncoderCheckpoint,
    Seq2SeqCheckpoint,
    TextAssets,
    open_checkpoint,
)
from leptond.errors import BackendUnavailable, InvalidRequest, UnsupportedCapability
from leptond.models.sources import Source, digest_of

__all__ = ["FindBackend", "ImportOptions", "Incoming", "Written", "open_incoming"]

FindBackend = Callable[[str], Backend]

_READY_ENGINES = ("ctranslate2", "onnxruntime")
# What other tools save a model in, so that a file of one is worth an explanation.
_FOREIGN_SUFFIXES = frozenset({".bin", ".ckpt", ".npz", ".onnx", ".pt", ".pth", ".safetensors"})
_BESIDE_TOKENIZER = ("tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the operator chose; None where he did not.

    Attributes:
        name: the model's in the store.
        backend: name of the engine.
        precision: of the only variant that is written.
        tokenizer: `tokenizer.json` of a model that is in the engine's format.
        pooling: of such an encoder: `mean`, `cls` or `last`.
    """

    name: str | None = None
    backend: str | None = None
    precision: str | None = None
    tokenizer: Path | None = None
    pooling: str | None = None


class Written(NamedTuple):
    """What is known of a variant once it is written: facts for `variant.toml`, text assets."""

    facts: Mapping[str, Any]
    text: TextAssets


class Incoming(ABC):
    """A source with the engine that shall run it.

    Attributes:
        precisions: a variant is written of each; None is whatever the files are in.
    """

    backend: Backend
    precisions: tuple[str | None, ...]

    @abstractmethod
    def identity(self) -> dict[str, str]:
        """Facts for `model.toml` that are equal exactly when the same is imported again."""

    @abstractmethod
    def write(self, precision: str | None, directory: Path, progress: Progress) -> Written:
        """Write one variant into the empty `directory`."""


def open_incoming(source: Source, options: ImportOptions, find_backend: FindBackend) -> Incoming:
    """Find out what `source` is and who shall run it.

    Raises:
        InvalidRequest, UnsupportedCapability: nobody takes it, or an option does not fit it; the
            message says what to do.
        BackendUnavailable: the engine is not installed, or a package that imports need.
    """
    chosen = options.backend or (source.recipe.backend if source.recipe else None)
    engines = [find_backend(chosen)] if chosen else []
    if _has_checkpoint(source.path):
        _refuse_ready_options(source, options)
    else:
        for backend in engines or _installed(_READY_ENGINES, find_backend):
            importer = backend.importer
            if isinstance(importer, ReadyImporter) and importer.is_ready(source.path):
                return _ReadyIncoming(source, backend, importer, options)
    if engines:
        return _CheckpointIncoming(source, engines[0], options.precision)
    checkpoint = _open_or_explain(source.path, lambda: _installed(_READY_ENGINES, find_backend))
    backend = _engine_of(checkpoint, find_backend)
    return _CheckpointIncoming(source, backend, options.precision, checkpoint)


class _CheckpointIncoming(Incoming):
    """A checkpoint; its text assets are its own."""

    def __init__(
        self,
        source: Source,
        backend: Backend,
        precision: str | None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.backend = backend
        self._source = source
        self._importer = _importer_of(backend)
        known = self._importer.precisions
        recipe = source.recipe.precisions_of if source.recipe else {}
        self.precisions = (precision,) if precision else recipe.get(backend.name, known[:1])
        for chosen in self.precisions:
            if chosen not in known:
                msg = f"backend {backend.name} writes {', '.join(known)}; not {chosen!r}"
                raise UnsupportedCapability(msg)
        self._opened = checkpoint

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        """Opened when something is written: the store may hold it already."""
        return self._opened or _open_or_explain(self._source.path, lambda: [self.backend])

    def identity(self) -> dict[str, str]:
        return {"source_sha256": self._source.sha256 or digest_of(self._source.path)}

    def write(self, precision: str | None, directory: Path, progress: Progress) -> Written:
        checkpoint = self._checkpoint
        chosen = precision or self.precisions[0] or ""
        told = self._importer.write(checkpoint, directory, chosen, progress)
        text = checkpoint.text
        facts = {
            "precision": chosen,
            "architecture": checkpoint.architecture.family,
            "max_context_tokens": (
                text.generation.max_positions
                if text.generation
                else checkpoint.architecture.max_positions or 0
            ),
        }
        return Written(facts | dict(told), text)


class _ReadyIncoming(Incoming):
    """Files in the engine's own format, and a tokenizer from the operator."""

    precisions = (None,)

    def __init__(
        self, source: Source, backend: Backend, importer: ReadyImporter, options: ImportOptions
    ) -> None:
        if options.tokenizer is None:
            msg = f"{source.path} is in the format of {backend.name}, which has no tokenizer in it"
            raise InvalidRequest(f"{msg}: give its --tokenizer FILE", field="--tokenizer")
        if not options.tokenizer.is_file():
            msg = f"--tokenizer {options.tokenizer} is no file"
            raise InvalidRequest(msg, field="--tokenizer")
        self.backend = backend
        self._path = source.path
        self._importer = importer
        self._tokenizer = options.tokenizer
        self._pooling = options.pooling
        self._precision = options.precision

    def identity(self) -> dict[str, str]:
        beside = [self._tokenizer.with_name(name) for name in _BESIDE_TOKENIZER]
        return {
            "source_sha256": digest_of(self._path, self._importer.files_beside(self._path)),
            "tokenizer_sha256": digest_of(self._tokenizer, filter(Path.is_file, beside)),
            "pooling": self._pooling or "",
        }

    def write(self, precision: str | None, directory: Path, progress: Progress) -> Written:
        del precision
        progress("copy", 0.0)
        facts, text = self._importer.import_ready(
            self._path, self._tokenizer, directory, pooling=self._pooling
        )
        if self._precision not in (None, facts["precision"]):
            raise InvalidRequest(
                f"{self._path} is in {facts['precision']}: what is in the engine's format already "
                f"is not turned into {self._precision}",
                field="--quantization",
            )
        return Written({"max_context_tokens": text.max_tokens, **facts}, text)


def _has_checkpoint(path: Path) -> bool:
    """Whether weights lie there that `leptond.checkpoint` reads."""
    if path.is_dir():
        return any(path.rglob("*.safetensors"))
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _refuse_ready_options(source: Source, options: ImportOptions) -> None:
    given = {"--tokenizer": options.tokenizer, "--pooling": options.pooling}
    for option, value in given.items():
        if value is not None:
            msg = f"{option} is for a model in an engine's own format; {source.path} has its own"
            raise InvalidRequest(msg, field=option)


def _installed(names: tuple[str, ...], find_backend: FindBackend) -> list[Backend]:
    found = []
    for name in names:
        try:
            found.append(find_backend(name))
        except BackendUnavailable:
            continue
    return found


def _engine_of(checkpoint: Checkpoint, find_backend: FindBackend) -> Backend:
    """The best engine that is there; raises what is wrong with the best of all."""
    names: tuple[str, ...]
    match checkpoint:
        case EncoderCheckpoint():
            names = ("ctranslate2", "onnxruntime")
        case Seq2SeqCheckpoint():
            names = ("ctranslate2",)
        case _:  # nothing stands in: int8 decoders are good there and worse elsewhere
            names = ("onnxruntime",)
    usable = _installed(names, find_backend)
    return usable[0] if usable else find_backend(names[0])


def _importer_of(backend: Backend) -> Importer:
    if backend.importer is None:
        raise UnsupportedCapability(f"backend {backend.name} does not import checkpoints")
    return backend.importer


def _open_or_explain(path: Path, explainers: Callable[[], Iterable[Backend]]) -> Checkpoint:
    """Open the checkpoint; of what another tool made, say how an engine could take it."""
    try:
        return open_checkpoint(path)
    except (InvalidRequest, UnsupportedCapability) as error:
        is_damaged = isinstance(error, InvalidRequest) and _has_checkpoint(path)
        is_foreign = path.is_dir() or path.suffix in _FOREIGN_SUFFIXES
        if is_damaged or not is_foreign:
            raise
        advice = _explain(path, explainers())
        if not advice:
            raise
        lead = f"{error.message}; " if isinstance(error, UnsupportedCapability) else ""
        raise type(error)(f"{lead}{advice}") from error


def _explain(path: Path, engines: Iterable[Backend]) -> str:
    """How a source that is no checkpoint could be taken over; "" when no engine knows."""
    importers = {
        backend.name: backend.importer
        for backend in engines
        if isinstance(backend.importer, ReadyImporter)
    }
    for inner in sorted(path.iterdir()) if path.is_dir() else ():
        for name, importer in importers.items():
            if importer.is_ready(inner):
                return f"{inner} is in the format of {name}: import that, with --tokenizer FILE"
    return next((importer.explain(path) for importer in importers.values()), "")
