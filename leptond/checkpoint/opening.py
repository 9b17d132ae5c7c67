"""Chooses the reader of a checkpoint by what lies at its path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from leptond.checkpoint.checkpoint import Checkpoint
from leptond.checkpoint.gguf_file import GgufFile
from leptond.checkpoint.gguf_llama import GgufLlamaCheckpoint
from leptond.checkpoint.hf_directory import HfDirectory
from leptond.checkpoint.hf_encoder import ENCODER_FAMILIES, HfEncoderCheckpoint
from leptond.checkpoint.hf_llama import DECODER_FAMILIES, HfDecoderCheckpoint
from leptond.checkpoint.hf_marian import TRANSLATOR_FAMILIES, HfTranslatorCheckpoint
from leptond.checkpoint.hf_t5 import HfT5Checkpoint
from leptond.checkpoint.sentence_transformers import read_sentence_transformer
from leptond.errors import InvalidRequest, UnsupportedCapability

__all__ = ["open_checkpoint"]

_GGUF_READERS = {"llama": GgufLlamaCheckpoint}
_HF_READERS: Mapping[str, Callable[[HfDirectory], Checkpoint]] = {
    "mt5": HfT5Checkpoint,
    "t5": HfT5Checkpoint,
    **dict.fromkeys(DECODER_FAMILIES, HfDecoderCheckpoint),
    **dict.fromkeys(TRANSLATOR_FAMILIES, HfTranslatorCheckpoint),
}


def open_checkpoint(path: Path) -> Checkpoint:
    """Open the checkpoint at `path`, a GGUF file or a Hugging Face directory.

    Raises:
        InvalidRequest: nothing there, not a checkpoint, truncated or inconsistent.
        UnsupportedCapability: an architecture, tokenizer, element type or architecture fact that
            is not read, or pickled weights; the message names the file and the key.
        BackendUnavailable: the package that reads the format is not installed.
    """
    return _open_directory(path) if path.is_dir() else _open_gguf(path)


def _open_gguf(path: Path) -> Checkpoint:
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


def _open_directory(path: Path) -> Checkpoint:
    modules = read_sentence_transformer(path)
    directory = HfDirectory(path if modules is None else modules.transformer)
    family = directory.model_type
    if family in ENCODER_FAMILIES:
        return HfEncoderCheckpoint(directory, modules)
    reader = _HF_READERS.get(family) if modules is None else None
    if reader is None:
        known = ", ".join(
            sorted(ENCODER_FAMILIES if modules else [*ENCODER_FAMILIES, *_HF_READERS])
        )
        raise directory.config.refuse("model_type", f"not supported (known: {known})")
    return reader(directory)
