"""Chooses the reader of a checkpoint by what lies at its path."""

from __future__ import annotations

from pathlib import Path

from leptond.checkpoint.checkpoint import Checkpoint
from leptond.checkpoint.gguf_file import GgufFile
from leptond.checkpoint.gguf_llama import GgufLlamaCheckpoint
from leptond.errors import InvalidRequest, UnsupportedCapability

__all__ = ["open_checkpoint"]

_GGUF_READERS = {"llama": GgufLlamaCheckpoint}


def open_checkpoint(path: Path) -> Checkpoint:
    """Open the checkpoint at `path`, a GGUF file.

    Raises:
        InvalidRequest: no such file, not a GGUF file, truncated or inconsistent.
        UnsupportedCapability: an architecture, pre-tokenizer, element type or architecture fact
            that is not read; the message names the file and the key.
        BackendUnavailable: the package that reads the format is not installed.
    """
    if path.is_dir():
        raise UnsupportedCapability(f"{path}: a directory: GGUF files are read")
    file = GgufFile(path)
    if file.metadata.get("split.count", 1) != 1:
        raise UnsupportedCapability(f"{path}: split.count: one part of a split model")
    architecture = file.metadata.get("general.architecture")
    if architecture is None:
        raise InvalidRequest(f"{path}: general.architecture is missing")
    reader = _GGUF_READERS.get(str(architecture))
    if reader is None:
        known = ", ".join(sorted(_GGUF_READERS))
        raise UnsupportedCapability(
            f"{path}: general.architecture: '{architecture}' is not supported (known: {known})"
        )
    return reader(file)
