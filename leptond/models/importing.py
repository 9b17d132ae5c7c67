"""`leptond import`: from a source to a model in the store.

Runs on the command line's thread. Fetching, checking and placing happen here; reading a
checkpoint is `leptond.checkpoint`'s work and writing an engine's files its plug-in's.

I1  The store changes by renames only, after everything was written and checked.
I2  Importing the same thing again changes nothing and says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from leptond.backend import Backend, Progress
from leptond.checkpoint import (
    Checkpoint,
    EncoderDefaults,
    open_checkpoint,
    write_text_assets,
)
from leptond.errors import InvalidRequest, UnsupportedCapability
from leptond.models.defaults import DEFAULTS, fetch_default
from leptond.models.names import ModelName
from leptond.models.store import VARIANT_FILE, Store, StoredModel, write_toml
from leptond.types import Task

__all__ = ["ImportedModel", "Source", "import_model", "resolve_source"]

_DIGEST_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    Attributes:
        path: the file or the directory to read.
        name: the model's name in the store, unless the caller chooses another.
        origin: what the operator typed, for `model.toml`.
        facts: licence and the like, when they are known.
        sha256: of the file, when it was checked already; of a directory, see `_digest`.
    """

    path: Path
    name: str
    origin: str
    facts: Mapping[str, Any]
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """What an import did; `is_new` is False when the store held it already."""

    name: ModelName
    version: int
    directory: Path
    is_new: bool


def import_model(
    source: str,
    store: Store,
    backend: Backend,
    *,
    name: str | None = None,
    precision: str | None = None,
    progress: Progress,
) -> ImportedModel:
    """Bring one variant of a model into the first directory of the store.

    Args:
        source: `default:chat`, or the path of a GGUF file or of a Hugging Face directory.
        store: where it goes.
        backend: the engine that shall run it.
        name: the model's name; None takes it from the source.
        precision: None is the backend's default. The variant is named after it; one for another
            engine than that of the model's first variant has the engine's name behind it.
        progress: told of every stage.

    Raises:
        InvalidRequest: the source is not there, damaged, or its name is no model name.
        UnsupportedCapability: an architecture, pre-tokenizer, type or precision is not known.
        BackendUnavailable: a package that imports need is missing.
    """
    importer = backend.importer
    if importer is None:
        raise UnsupportedCapability(f"backend {backend.name} does not import checkpoints")
    chosen = precision or importer.precisions[0]
    if chosen not in importer.precisions:
        known = ", ".join(importer.precisions)
        raise UnsupportedCapability(f"backend {backend.name} writes {known}; not {chosen!r}")
    with store.staging() as staging:
        found = resolve_source(source, staging, progress)
        model = ModelName.parse(name or found.name, field="--name")
        if model.variant is not None:
            raise InvalidRequest(f"--name {model} names a variant; --quantization chooses it")
        progress("digest", 0.0)
        digest = found.sha256 or _digest(found.path)
        stored = _same_source(store, model.model, digest)
        variant = _variant_name(stored, backend.name, chosen)
        result = ModelName(model.model, variant)
        home = store.directories[0] / model.model
        held = stored.variants.get(variant) if stored is not None else None
        if stored is not None and held is not None and not held.fault:
            return ImportedModel(result, stored.version, held.directory, False)  # noqa: FBT003
        checkpoint = open_checkpoint(found.path)
        version_dir = staging / "version"
        variant_dir = version_dir / variant
        variant_dir.mkdir(parents=True)
        facts = importer.write(checkpoint, variant_dir, chosen, progress)
        write_toml(variant_dir / VARIANT_FILE, _variant_facts(backend, checkpoint, chosen, facts))
        progress("publish", 1.0)
        if stored is None:
            write_text_assets(checkpoint, version_dir)
            told = {
                "default_variant": variant,
                "default_backend": backend.name,
                **_model_facts(found, checkpoint, digest),
            }
            version = store.publish_version(model.model, version_dir, told)
        else:
            version = stored.version
            store.publish_variant(model.model, version, variant, variant_dir)
        return ImportedModel(result, version, home / str(version) / variant, True)  # noqa: FBT003


def resolve_source(text: str, staging: Path, progress: Progress) -> Source:
    """Find, or fetch into `staging`, what `text` names.

    Raises:
        InvalidRequest: it is neither a known default nor an existing file.
    """
    if text.startswith("default:"):
        default = DEFAULTS.get(text)
        if default is None:
            known = ", ".join(sorted(DEFAULTS))
            raise InvalidRequest(f"source {text!r} is not known; the defaults are {known}")
        progress("download", 0.0)
        file = fetch_default(default, staging)
        return Source(file, default.name, text, default.facts, default.file_sha256)
    path = Path(text).expanduser()
    if not path.is_file() and not path.is_dir():
        known = ", ".join(DEFAULTS)
        raise InvalidRequest(f"source {text!r} is neither a file, a directory nor one of {known}")
    return Source(path, _name_from_path(path), str(path.absolute()), {})


def _name_from_path(path: Path) -> str:
    """`SmolLM2-135M-Instruct.Q4_1.gguf` → `smollm2-135m-instruct.q4_1`."""
    stem = path.resolve().name if path.is_dir() else path.stem
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower())
    return name.lstrip("._-")[:128]


def _same_source(store: Store, model: str, digest: str) -> StoredModel | None:
    """The model in the first directory, when it was imported from the same bytes."""
    stored = Store(store.directories[:1]).find(model)
    if stored is None or stored.facts.get("source_sha256") != digest:
        return None
    return stored


def _variant_name(stored: StoredModel | None, backend: str, precision: str) -> str:
    """`int8`, or `int8-onnxruntime` beside a first variant of another engine."""
    if stored is None:
        return precision
    first = stored.facts.get("default_backend", backend)
    return precision if first == backend else f"{precision}-{backend}"


def _digest(path: Path) -> str:
    """SHA-256 of a file; of a directory, that of the lines `digest  name` of its files."""
    if not path.is_dir():
        return _sha256(path)
    names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{_sha256(path / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_DIGEST_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _model_facts(source: Source, checkpoint: Checkpoint, digest: str) -> dict[str, Any]:
    return {
        "tasks": [task.value for task in _tasks(checkpoint)],
        "source": source.origin,
        "source_sha256": digest,
        "imported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **source.facts,
    }


def _tasks(checkpoint: Checkpoint) -> tuple[Task, ...]:
    """What can be asked of the model, whatever engine runs it."""
    encoder = checkpoint.text.encoder
    if isinstance(encoder, EncoderDefaults):
        if not encoder.labels:
            return Task.EMBED, Task.RERANK
        return (Task.CLASSIFY, Task.RERANK) if encoder.is_cross_encoder else (Task.CLASSIFY,)
    if encoder is not None:
        return Task.TRANSLATE, Task.GENERATE, Task.SCORE
    is_chat = checkpoint.text.chat_template is not None
    return (Task.GENERATE, Task.CHAT, Task.SCORE) if is_chat else (Task.GENERATE, Task.SCORE)


def _variant_facts(
    backend: Backend, checkpoint: Checkpoint, precision: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    generation = checkpoint.text.generation
    max_positions = (
        generation.max_positions if generation else checkpoint.architecture.max_positions
    )
    return {
        "backend": backend.name,
        "precision": precision,
        "architecture": checkpoint.architecture.family,
        "max_context_tokens": max_positions or 0,
        **({} if precision.startswith("float") else {"quantization": precision}),
        **{key: value for key, value in facts.items() if value is not None},
    }
