"""Turns checkpoints into ONNX graphs for this engine. Needs the `import` extra when called.

`graph_io` and `encoder_io` say what the graphs look like to a session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leptond.errors import BackendUnavailable
from leptond_onnxruntime.importer.encoder_io import EncoderSpec
from leptond_onnxruntime.importer.graph_io import GraphSpec, Precision

if TYPE_CHECKING:
    from leptond.checkpoint import Checkpoint, EncoderCheckpoint, TextAssets

__all__ = [
    "EncoderSpec",
    "GraphSpec",
    "Precision",
    "import_decoder",
    "import_encoder",
    "import_onnx_file",
    "weight_files",
]

Progress = Callable[[str, float], None]


def import_decoder(
    checkpoint: Checkpoint, directory: Path, precision: Precision, progress: Progress
) -> GraphSpec:
    """Write `checkpoint` as body and head graph, weights and description into `directory`.

    Weights are read, converted and written tensor by tensor; the embedding is the largest thing
    in memory.

    Args:
        checkpoint: as `leptond.checkpoint.open_checkpoint` returns it.
        directory: exists and is empty; after an error its content is worthless.
        precision: how weights are kept and computed with.
        progress: told what was done and the share of the whole, 0.0 to 1.0, on this thread.

    Returns:
        The description, as it was written.

    Raises:
        UnsupportedCapability: the architecture has a fact that these graphs cannot express.
        BackendUnavailable: the `onnx` package is not installed.
        OSError: the directory cannot be written.
    """
    _require_onnx()
    from leptond_onnxruntime.importer.decoder import write_decoder  # noqa: PLC0415 - needs onnx

    return write_decoder(checkpoint, directory, precision, progress)


def import_encoder(
    checkpoint: EncoderCheckpoint, directory: Path, precision: Precision, progress: Progress
) -> EncoderSpec:
    """Write `checkpoint` as one graph, weights, head and description into `directory`.

    As `import_decoder`; FLOAT32 and INT8 are written.
    """
    _require_onnx()
    from leptond_onnxruntime.importer.encoder import write_encoder  # noqa: PLC0415 - needs onnx

    return write_encoder(checkpoint, directory, precision, progress)


def import_onnx_file(
    source: Path, tokenizer: Path, directory: Path, *, pooling: str | None = None
) -> tuple[EncoderSpec, TextAssets]:
    """Take over an encoder that somebody else exported: see `ready.import_file`."""
    _require_onnx()
    from leptond_onnxruntime.importer.ready import import_file  # noqa: PLC0415 - needs onnx

    return import_file(source, tokenizer, directory, pooling=pooling)


def weight_files(source: Path) -> Sequence[Path]:
    """The files beside the ONNX file `source` that hold weights of it: see `OnnxFile`."""
    _require_onnx()
    from leptond_onnxruntime.importer.onnx_file import OnnxFile  # noqa: PLC0415 - needs onnx

    return OnnxFile(source).weight_files


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401, PLC0415 - part of the `import` extra, absent when serving
    except ImportError as error:
        raise BackendUnavailable(
            "ONNX graphs need the 'onnx' package: pip install 'leptond[import]'"
        ) from error
