"""What the operator typed after `leptond import`, found or fetched, and its digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leptond.backend import Progress
from leptond.errors import InvalidRequest
from leptond.models.defaults import DEFAULTS, DefaultModel, fetch_default
from leptond.models.wheels import WheelFile

__all__ = ["Source", "digest_of", "resolve_source"]

_DIGEST_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    Attributes:
        path: the file or the directory to read.
        name: the model's name in the store, unless the caller chooses another.
        origin: what the operator typed, for `model.toml`.
        facts: licence and the like, when they are known.
        sha256: of the file, when it was checked already; of a directory, see `digest_of`.
        recipe: of a default model.
    """

    path: Path
    name: str
    origin: str
    facts: Mapping[str, Any]
    sha256: str | None = None
    recipe: DefaultModel | None = None


def resolve_source(text: str, staging: Path, progress: Progress) -> Source:
    """Find, or fetch into `staging`, what `text` names.

    Raises:
        InvalidRequest: it is neither a known default nor an existing file.
        BackendUnavailable: a default has to be fetched and there is no pip.
    """
    if text.startswith("default:"):
        default = DEFAULTS.get(text)
        if default is None:
            known = ", ".join(sorted(DEFAULTS))
            raise InvalidRequest(f"source {text!r} is not known; the defaults are {known}")
        progress("download", 0.0)
        path = fetch_default(default, staging)
        content = default.content
        digest = content.sha256 if isinstance(content, WheelFile) else None
        return Source(path, default.name, text, default.facts, digest, default)
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


def digest_of(path: Path, others: Iterable[Path] = ()) -> str:
    """SHA-256 of a file; of a directory, that of the lines `digest  name` of its files.

    With `others`, files that decide what becomes of it, that of one such line each.
    """
    digest = _sha256_of_directory(path) if path.is_dir() else _sha256(path)
    lines = "".join(f"{_sha256(other)}  {other.name}\n" for other in others)
    return hashlib.sha256(f"{digest}\n{lines}".encode()).hexdigest() if lines else digest


def _sha256_of_directory(path: Path) -> str:
    names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{_sha256(path / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_DIGEST_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
