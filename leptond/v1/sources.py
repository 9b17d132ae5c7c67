"""The texts of all protos that are served and of every file that they need, for other languages.

Called by `leptond protos`. Our own files, and those of the dialects, ship inside this package; in a
checkout they lie in its `protos/`. Those of `google/rpc` come from googleapis-common-protos. Files
of `google/protobuf` are not written: every protoc, buf and protobuf library brings its own.
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

__all__ = ["write_protos"]

_PACKAGES = ("leptond/v1", "tei/v1")
# `status` is imported by ours; the other two describe what errors carry in its `details`.
_GOOGLE_RPC = ("code.proto", "error_details.proto", "status.proto")


def write_protos(directory: Path) -> list[Path]:
    """Write every proto below `directory`, which is then a complete import path for protoc.

    Args:
        directory: made if it is missing. Files of the same names in it are overwritten.

    Returns:
        The files written, sorted.

    Raises:
        OSError: a file cannot be written.
    """
    google = resources.files("google.rpc")
    written = [
        *(
            _copy(file, directory / package)
            for package in _PACKAGES
            for file in (_own_protos() / package).iterdir()
        ),
        *(_copy(google / name, directory / "google/rpc") for name in _GOOGLE_RPC),
    ]
    return sorted(written)


def _own_protos() -> Traversable:
    shipped = resources.files("leptond.v1") / "protos"
    return shipped if shipped.is_dir() else Path(__file__).parents[2] / "protos"


def _copy(source: Traversable, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / source.name
    target.write_bytes(source.read_bytes())
    return target
