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
from leptond.checkpoint import Checkpoint, open_checkpoint, write_text_assets
from leptond.errors import InvalidRequest, UnsupportedCapability
from leptond.models.defaults import DEFAULTS, fetch_default
from leptond.models.names import ModelName
from leptond.models.store import VARIANT_FILE, Store, StoredModel, write_toml

__all__ = ["ImportedModel", "Source", "import_model", "resolve_source"]

_DIGEST_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    Attributes:
        path: the file to read.
        name: the model's name in the store, unless the caller chooses another.
        origin: what the operator typed, for `model.toml`.
        facts: licence and the like, when they are known.
        sha256: of the file, when it was checked already.
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
        source: `default:chat`, or the path of a GGUF file.
        store: where it goes.
        backend: the engine that shall run it.
        name: the model's name; None takes it from the source.
        precision: None is the backend's default; the variant is named after it.
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
        digest = found.sha256 or _sha256(found.path)
        stored = _same_source(store, model.model, digest)
        result = ModelName(model.model, chosen)
        home = store.directories[0] / model.model
        held = stored.variants.get(chosen) if stored is not None else None
        if stored is not None and held is not None and not held.fault:
            return ImportedModel(result, stored.version, held.directory, False)  # noqa: FBT003
        checkpoint = open_checkpoint(found.path)
        version_dir = staging / "version"
        variant_dir = version_dir / chosen
        variant_dir.mkdir(parents=True)
        facts = importer.write(checkpoint, variant_dir, chosen, progress)
        write_toml(variant_dir / VARIANT_FILE, _variant_facts(backend, checkpoint, chosen, facts))
        progress("publish", 1.0)
        if stored is None:
            write_text_assets(checkpoint, version_dir)
            told = _model_facts(found, checkpoint, digest, chosen)
            version = store.publish_version(model.model, version_dir, told)
        else:
            version = stored.version
            store.publish_variant(model.model, version, chosen, variant_dir)
        return ImportedModel(result, version, home / str(version) / chosen, True)  # noqa: FBT003


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
    if not path.is_file():
        raise InvalidRequest(f"source {text!r} is neither a file nor one of {', '.join(DEFAULTS)}")
    return Source(path, _name_from_file(path), str(path.absolute()), {})


def _name_from_file(path: Path) -> str:
    """`SmolLM2-135M-Instruct.Q4_1.gguf` → `smollm2-135m-instruct.q4_1`."""
    name = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower())
    return name.lstrip("._-")[:128]


def _same_source(store: Store, model: str, digest: str) -> StoredModel | None:
    """The model in the first directory, when it was imported from the same bytes."""
    stored = Store(store.directories[:1]).find(model)
    if stored is None or stored.facts.get("source_sha256") != digest:
        return None
    return stored


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_DIGEST_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _model_facts(
    source: Source, checkpoint: Checkpoint, digest: str, default_variant: str
) -> dict[str, Any]:
    tasks = ["generate"] if checkpoint.text.chat_template is None else ["generate", "chat"]
    return {
        "default_variant": default_variant,
        "tasks": tasks,
        "source": source.origin,
        "source_sha256": digest,
        "imported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **source.facts,
    }


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
