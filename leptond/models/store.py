"""The store on disk: which models there are, and how a new one gets in.

    <store>/<model>/model.toml                    what the model is; its default variant
    <store>/<model>/<version>/tokenizer.json ...  text assets, shared by the variants
    <store>/<model>/<version>/<variant>/variant.toml and the engine's own files

Read by the registry on a loader thread and by the command line; written only by `leptond import`.

I1  A directory below `<model>/` is complete or absent: everything is written into a staging
    directory on the same file system and renamed into place.
I2  A staging directory is locked by the process that fills it; one without a living owner is
    removed by the next import.
I3  What an import writes belongs to the owner of the store, also when root runs it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leptond.errors import ModelFailed
from leptond.types import Task

__all__ = ["MODEL_FILE", "VARIANT_FILE", "Store", "StoredModel", "StoredVariant", "write_toml"]

MODEL_FILE = "model.toml"
VARIANT_FILE = "variant.toml"
_STAGING_PREFIX = ".import-"
_STAGING_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class StoredVariant:
    """One variant of one version on disk.

    Attributes:
        directory: the engine's files.
        assets: the version's directory, with tokenizer and chat template.
        facts: the whole of `variant.toml`.
    """

    model: str
    variant: str
    version: int
    backend: str
    precision: str
    tasks: frozenset[Task]
    directory: Path
    assets: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`model:variant`, the full name."""
        return f"{self.model}:{self.variant}"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model with every variant of its newest version, by variant name."""

    name: str
    version: int
    default_variant: str
    variants: Mapping[str, StoredVariant]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Store:
    """Model directories, searched in order; imports go into the first.

    Args:
        directories: need not exist; the first is made by the first import.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self.directories = tuple(directories)

    def scan(self) -> dict[str, StoredModel]:
        """Read every model of every directory; of two with one name the first directory wins.

        Raises:
            ModelFailed: naming the file, when a `model.toml` or `variant.toml` is unreadable.
        """
        models: dict[str, StoredModel] = {}
        for root in self.directories:
            if not root.is_dir():
                continue
            for file in sorted(root.glob(f"[!.]*/{MODEL_FILE}")):
                if file.parent.name not in models and (model := self._read(file)) is not None:
                    models[model.name] = model
        return models

    def find(self, name: str) -> StoredModel | None:
        """Read one model by name, or None when no directory holds it."""
        for root in self.directories:
            file = root / name / MODEL_FILE
            if file.is_file() and (model := self._read(file)) is not None:
                return model
        return None

    def _read(self, file: Path) -> StoredModel | None:
        facts = _read_toml(file)
        name = file.parent.name
        versions = sorted(
            (int(entry.name) for entry in file.parent.iterdir() if entry.name.isdecimal()),
            reverse=True,
        )
        if not versions:
            return None
        version = versions[0]
        variants = {
            variant.variant: variant
            for variant_file in sorted(file.parent.glob(f"{version}/*/{VARIANT_FILE}"))
            for variant in [self._read_variant(name, version, variant_file, facts)]
        }
        if not variants:
            return None
        default = str(facts.get("default_variant", ""))
        if default not in variants:
            default = next(iter(variants))
        return StoredModel(name, version, default, variants, facts)

    @staticmethod
    def _read_variant(
        model: str, version: int, file: Path, model_facts: Mapping[str, Any]
    ) -> StoredVariant:
        facts = _read_toml(file)
        try:
            tasks = frozenset(Task(task) for task in facts.get("tasks", model_facts["tasks"]))
            return StoredVariant(
                model=model,
                variant=file.parent.name,
                version=version,
                backend=str(facts["backend"]),
                precision=str(facts["precision"]),
                tasks=tasks,
                directory=file.parent,
                assets=file.parent.parent,
                facts=facts,
            )
        except (KeyError, ValueError) as error:
            msg = f"{file}: key {error} is missing or has a value that is not known"
            raise ModelFailed(msg) from error

    # Imports: nothing is written outside a staging directory.

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A private directory on the first store's file system; gone when the block ends."""
        root = self.directories[0]
        root.mkdir(parents=True, exist_ok=True)
        self._sweep(root)
        path = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=root))
        lock = _lock(path)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)

    def publish_version(self, model: str, staged: Path) -> int:
        """Rename a staged version directory into place as the model's next version."""
        home = self.directories[0] / model
        home.mkdir(exist_ok=True)
        self._give_to_owner(home)
        taken = [int(entry.name) for entry in home.iterdir() if entry.name.isdecimal()]
        version = max(taken, default=0) + 1
        self._give_to_owner(staged)
        staged.rename(home / str(version))
        return version

    def publish_variant(self, model: str, version: int, variant: str, staged: Path) -> None:
        """Rename a staged variant directory into an existing version.

        A variant of that name is moved aside first, so that the place is never half-filled.
        """
        place = self.directories[0] / model / str(version) / variant
        self._give_to_owner(staged)
        if place.exists():
            place.rename(staged.parent / "replaced")
        staged.rename(place)

    def write_model_file(self, model: str, facts: Mapping[str, Any], staging: Path) -> None:
        """Replace the model's `model.toml` in one rename."""
        draft = staging / MODEL_FILE
        write_toml(draft, facts)
        self._give_to_owner(draft)
        draft.rename(self.directories[0] / model / MODEL_FILE)

    def _give_to_owner(self, path: Path) -> None:
        if os.geteuid() != 0:
            return
        owner = self.directories[0].stat()
        for entry in (path, *path.rglob("*")):
            os.chown(entry, owner.st_uid, owner.st_gid, follow_symlinks=False)

    @staticmethod
    def _sweep(root: Path) -> None:
        """Remove staging directories whose process is gone (I2)."""
        for path in root.glob(f"{_STAGING_PREFIX}*"):
            lock = _try_lock(path)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _lock(path: Path) -> int:
    descriptor = os.open(path / _STAGING_LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _try_lock(path: Path) -> int | None:
    """The lock of an abandoned staging directory, or None while its owner lives."""
    try:
        descriptor = os.open(path / _STAGING_LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None  # being made, or being removed, by its owner
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def write_toml(file: Path, facts: Mapping[str, Any]) -> None:
    """Write facts as TOML; needs the `import` extra."""
    import tomli_w  # noqa: PLC0415 - only imports write, and only their extra brings it

    file.write_text(tomli_w.dumps(facts), encoding="utf-8")


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"{file}: {error}"
        raise ModelFailed(msg) from error
