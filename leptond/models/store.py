"""The store on disk: which models there are, and how a new one gets in.

    <store>/<model>/model.toml                    what the model is; default variant, version
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
import logging
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leptond.types import Task

_LOG = logging.getLogger(__name__)

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
        facts: `model.toml` and, over it, `variant.toml`.
        fault: what is wrong with one of these files, by the file's name and the key, without
            its directory; "" when nothing is. Then the other fields may hold nothing of use.
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
    fault: str = ""

    @property
    def name(self) -> str:
        """`model:variant`, the full name."""
        return f"{self.model}:{self.variant}"

    def without_paths(self, text: str) -> str:
        """`text` with this version's files named from its directory on: for callers to read."""
        return text.replace(f"{self.assets}{os.sep}", "")


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
        self._told: dict[Path, str] = {}

    def scan(self) -> dict[str, StoredModel]:
        """Read every model of every directory; of two with one name the first directory wins.

        What is damaged is logged once, and is there with its `fault`.
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

    def stamp(self) -> tuple[int, ...]:
        """Changes when a model comes or goes; costs one look at each directory."""
        return tuple(root.stat().st_mtime_ns for root in self.directories if root.is_dir())

    def _read(self, file: Path) -> StoredModel | None:
        try:
            versions = [int(entry.name) for entry in file.parent.iterdir() if _is_version(entry)]
        except FileNotFoundError:  # removed since it was found
            return None
        except OSError as error:
            self._tell(file, f"{file.parent.name}: {error.strerror}")
            return None
        name = file.parent.name
        facts, fault = self._read_toml(file)
        if not fault:
            fault = self._tell(file, _fault_of_model(facts))
        published = [one for one in versions if fault or one <= facts.get("version", one)]
        version = max(published, default=0)
        variants = {
            variant.variant: variant
            for variant_file in sorted(file.parent.glob(f"{version}/*/{VARIANT_FILE}"))
            for variant in [self._read_variant(name, version, variant_file, facts, fault)]
        }
        if not variants:
            return None
        default = facts.get("default_variant")
        if default not in variants:
            default = next(iter(variants))
        return StoredModel(name, version, default, variants, facts)

    def _read_variant(
        self, model: str, version: int, file: Path, model_facts: Mapping[str, Any], fault: str
    ) -> StoredVariant:
        own, own_fault = self._read_toml(file)
        facts = {**model_facts, **own}
        if not fault and not own_fault:
            own_fault = self._tell(file, _fault_of_variant(facts))
        fault = fault or own_fault
        return StoredVariant(
            model=model,
            variant=file.parent.name,
            version=version,
            backend=str(facts.get("backend", "")),
            precision=str(facts.get("precision", "")),
            tasks=frozenset() if fault else frozenset(Task(task) for task in facts["tasks"]),
            directory=file.parent,
            assets=file.parent.parent,
            facts=facts,
            fault=fault,
        )

    def _read_toml(self, file: Path) -> tuple[dict[str, Any], str]:
        """What the file holds, and what is wrong with it, if something is."""
        try:
            facts = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            return {}, self._tell(file, f"{file.name}: {error.strerror}")
        except ValueError as error:  # not UTF-8, not TOML
            return {}, self._tell(file, f"{file.name}: {error}")
        return facts, self._tell(file, "")

    def _tell(self, file: Path, fault: str) -> str:
        """Log a fault the first time that it is seen; returns it."""
        if fault and self._told.get(file) != fault:
            _LOG.error("damaged model path=%s fault=%s", file, fault)
        if fault:
            self._told[file] = fault
        return fault

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

    def publish_version(self, model: str, staged: Path, facts: Mapping[str, Any]) -> int:
        """Make a staged version directory the model's newest, with `facts` as its `model.toml`.

        A new model comes with one rename. A new version of a model comes when its `model.toml`,
        which names the version in use, is replaced: what a kill leaves before that is not read,
        and is removed by the next import of the model.
        """
        home = self.directories[0] / model
        with _locked_directory(self.directories[0]):
            if not home.exists():
                whole = staged.parent / "model"
                whole.mkdir(mode=0o755)
                staged.rename(whole / "1")
                write_toml(whole / MODEL_FILE, {**facts, "version": 1})
                self._give_to_owner(whole)
                whole.rename(home)
                return 1
            current = self._state_version(home, staged.parent)
            version = self._next_version(home, current, staged.parent)
            self._give_to_owner(staged)
            staged.rename(home / str(version))
            self._replace_model_file(home, {**facts, "version": version}, staged.parent)
            return version

    def _state_version(self, home: Path, staging: Path) -> int | None:
        """The version in use, which `model.toml` says from now on; None when it is unreadable."""
        versions = [int(entry.name) for entry in home.iterdir() if _is_version(entry)]
        if not versions or not (home / MODEL_FILE).exists():
            return None
        facts, fault = self._read_toml(home / MODEL_FILE)
        if fault or _fault_of_model(facts):
            return None
        if "version" not in facts:
            self._replace_model_file(home, {**facts, "version": max(versions)}, staging)
        return int(facts.get("version", max(versions)))

    @staticmethod
    def _next_version(home: Path, current: int | None, staging: Path) -> int:
        """A free number; versions that were never published go."""
        taken = [int(entry.name) for entry in home.iterdir() if _is_version(entry)]
        if current is None:
            return max(taken, default=0) + 1
        for version in taken:
            if version > current:
                (home / str(version)).rename(staging / f"unpublished-{version}")
        return current + 1

    def publish_variant(self, model: str, version: int, variant: str, staged: Path) -> None:
        """Rename a staged variant directory into an existing version.

        A variant of that name is moved aside first, so that the place is never half-filled.
        """
        place = self.directories[0] / model / str(version) / variant
        self._give_to_owner(staged)
        if place.exists():
            place.rename(staged.parent / "replaced")
        staged.rename(place)

    def _replace_model_file(self, home: Path, facts: Mapping[str, Any], staging: Path) -> None:
        draft = staging / MODEL_FILE
        write_toml(draft, facts)
        self._give_to_owner(draft)
        draft.rename(home / MODEL_FILE)

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


@contextmanager
def _locked_directory(path: Path) -> Iterator[None]:
    """Keep other imports from publishing meanwhile; ends with the process, too."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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


def _is_version(entry: Path) -> bool:
    return entry.name.isascii() and entry.name.isdecimal()


def _fault_of_model(facts: Mapping[str, Any]) -> str:
    version = facts.get("version", 1)
    if type(version) is not int or version < 1:
        return f"{MODEL_FILE}: key 'version' is {version!r}, not a whole number above 0"
    return ""


def _fault_of_variant(facts: Mapping[str, Any]) -> str:
    """What is missing or wrong in the facts of a variant; its model's are among them."""
    for key in ("backend", "precision"):
        if not isinstance(facts.get(key), str):
            return f"{VARIANT_FILE}: key {key!r} is missing or is no text"
    tasks = facts.get("tasks")
    if not isinstance(tasks, list) or not all(task in set(Task) for task in tasks):
        known = ", ".join(Task)
        return f"{MODEL_FILE}: key 'tasks' is missing or holds what is not one of {known}"
    context = facts.get("max_context_tokens", 0)
    if type(context) is not int or context < 0:
        return f"{VARIANT_FILE}: key 'max_context_tokens' is {context!r}, not a whole number"
    return ""
