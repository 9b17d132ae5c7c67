"""`leptond import`: from a source to a model in the store.

Runs on the command line's thread. Finding and fetching the source is `leptond.models.sources`'
work, choosing the engine that of `leptond.models.incoming`; reading a checkpoint is
`leptond.checkpoint`'s and writing an engine's files its plug-in's. Placing happens here.

I1  The store changes by renames only, after everything was written and checked.
I2  Importing the same thing again changes nothing and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from leptond.backend import Backend, Progress
from leptond.backend.registry import get_backend
from leptond.checkpoint import EncoderDefaults, TextAssets, write_text_assets
from leptond.errors import InvalidRequest
from leptond.models.incoming import (
    FindBackend,
    ImportOptions,
    Incoming,
    Written,
    open_incoming,
)
from leptond.models.names import ModelName
from leptond.models.sources import Source, resolve_source
from leptond.models.store import VARIANT_FILE, Store, StoredModel, write_toml
from leptond.types import Task

__all__ = ["ImportOptions", "ImportedModel", "import_model", "import_variants"]


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """What an import did of one variant.

    Attributes:
        is_new: False when the store held it already.
        advice: what its importer wants the operator to know; "" when nothing.
    """

    name: ModelName
    version: int
    directory: Path
    is_new: bool
    advice: str = ""


@dataclass(frozen=True, slots=True)
class _Staged:
    """A variant that is written and not published yet."""

    variant: str
    directory: Path
    written: Written

    def published(self, model: str, version: int, place: Path) -> ImportedModel:
        """What is told of it once it is in the version's directory `place`."""
        advice = str(self.written.facts.get("advice", ""))
        name = ModelName(model, self.variant)
        return ImportedModel(name, version, place / self.variant, is_new=True, advice=advice)


def import_model(
    source: str,
    store: Store,
    backend: Backend,
    *,
    name: str | None = None,
    precision: str | None = None,
    progress: Progress,
) -> ImportedModel:
    """Bring one variant of a model into the store, for a backend that is there already.

    Without `precision` it is the recipe's first or the backend's default; else, and what is
    raised, see `import_variants`.
    """
    options = ImportOptions(name=name, backend=backend.name, precision=precision)
    return import_variants(
        source, store, options, find_backend=lambda name: backend, progress=progress
    )[0]


def import_variants(
    source: str,
    store: Store,
    options: ImportOptions,
    *,
    find_backend: FindBackend = get_backend,
    progress: Progress,
) -> list[ImportedModel]:
    """Bring a model into the first directory of the store, in one variant or a recipe's several.

    A variant is named after its precision; one for another engine than the model's own, which is
    the recipe's or that of the first variant, has the engine's name behind it. Nothing is in the
    store before all are written.

    Args:
        source: `default:chat`, or the path of a GGUF file, of a Hugging Face directory, or of
            what an engine's importer takes over as it is.
        store: where it goes.
        options: what the operator chose.
        find_backend: the engine of a name; raises `BackendUnavailable`.
        progress: told of every stage.

    Raises:
        InvalidRequest: the source is not there, damaged, or its name is no model name.
        UnsupportedCapability: an architecture, pre-tokenizer, type or precision is not known.
        BackendUnavailable: an engine is not there, or a package that imports need.
    """
    with store.staging() as staging:
        found = resolve_source(source, staging, progress)
        model = ModelName.parse(options.name or found.name, field="--name")
        if model.variant is not None:
            raise InvalidRequest(f"--name {model} names a variant; --quantization chooses it")
        incoming = open_incoming(found, options, find_backend)
        progress("digest", 0.0)
        identity = incoming.identity()
        stored = _same_source(store, model.model, identity)
        version_dir = staging / "version"
        version_dir.mkdir()
        home = _home_engine(stored, found, incoming)
        results: list[ImportedModel | _Staged] = [
            _held(stored, incoming, precision)
            or _stage(incoming, precision, home, version_dir, progress)
            for precision in incoming.precisions
        ]
        staged = [result for result in results if isinstance(result, _Staged)]
        version = stored.version if stored is not None else 0
        if staged and stored is None:
            facts = {"default_backend": home, **_model_facts(found, staged[0], identity)}
            write_text_assets(staged[0].written.text, version_dir)
            progress("publish", 1.0)
            version = store.publish_version(model.model, version_dir, facts)
        elif staged:
            progress("publish", 1.0)
            for one in staged:
                store.publish_variant(model.model, version, one.variant, one.directory)
    place = store.directories[0] / model.model / str(version)
    return [
        one if isinstance(one, ImportedModel) else one.published(model.model, version, place)
        for one in results
    ]


def _same_source(store: Store, model: str, identity: Mapping[str, str]) -> StoredModel | None:
    """The model in the first directory, when it was imported from the same bytes."""
    stored = Store(store.directories[:1]).find(model)
    if stored is None or any(stored.facts.get(key) != value for key, value in identity.items()):
        return None
    return stored


def _home_engine(stored: StoredModel | None, source: Source, incoming: Incoming) -> str:
    """The engine whose variants are named after their precision alone."""
    own = source.recipe.backend if source.recipe else incoming.backend.name
    return str(stored.facts.get("default_backend", own)) if stored is not None else own


def _held(
    stored: StoredModel | None, incoming: Incoming, precision: str | None
) -> ImportedModel | None:
    """The variant that the store holds already; a damaged one is written again."""
    for one in stored.variants.values() if stored is not None else ():
        fits = one.backend == incoming.backend.name and precision in (None, one.precision)
        if fits and not one.fault:
            name = ModelName(one.model, one.variant)
            return ImportedModel(name, one.version, one.directory, is_new=False)
    return None


def _stage(
    incoming: Incoming, precision: str | None, home: str, version_dir: Path, progress: Progress
) -> _Staged:
    """Write one variant into the staged version."""
    directory = version_dir / _variant_name(precision or "ready", incoming.backend.name, home)
    directory.mkdir()
    written = incoming.write(precision, directory, progress)
    facts = written.facts
    variant = _variant_name(facts["precision"], incoming.backend.name, home)
    place = directory.rename(version_dir / variant)
    write_toml(place / VARIANT_FILE, _variant_facts(incoming.backend, facts))
    return _Staged(variant, place, written)


def _variant_name(precision: str, backend: str, home: str) -> str:
    """`int8`, or `int8-onnxruntime` where another engine is the model's own."""
    return precision if backend == home else f"{precision}-{backend}"


def _model_facts(source: Source, first: _Staged, identity: Mapping[str, str]) -> dict[str, Any]:
    return {
        "default_variant": first.variant,
        "tasks": [task.value for task in _tasks(first.written.text)],
        "source": source.origin,
        **identity,
        "imported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **source.facts,
    }


def _tasks(text: TextAssets) -> tuple[Task, ...]:
    """What can be asked of the model, whatever engine runs it."""
    encoder = text.encoder
    if isinstance(encoder, EncoderDefaults):
        if not encoder.labels:
            return Task.EMBED, Task.RERANK
        return (Task.CLASSIFY, Task.RERANK) if encoder.is_cross_encoder else (Task.CLASSIFY,)
    if encoder is not None:
        return Task.TRANSLATE, Task.GENERATE, Task.SCORE
    is_chat = text.chat_template is not None
    return (Task.GENERATE, Task.CHAT, Task.SCORE) if is_chat else (Task.GENERATE, Task.SCORE)


def _variant_facts(backend: Backend, facts: Mapping[str, Any]) -> dict[str, Any]:
    is_quantised = "float" not in str(facts["precision"]).split("_")[0]
    return {
        "backend": backend.name,
        **({"quantization": facts["precision"]} if is_quantised else {}),
        **{key: value for key, value in facts.items() if value is not None},
    }
