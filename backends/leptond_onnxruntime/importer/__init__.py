"""Turns checkpoints into ONNX graphs for this engine. Needs the `import` extra when called.

`leptond_onnxruntime.importer.graph_io` says what the graphs look like to the session.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from leptond.errors import BackendUnavailable
from leptond_onnxruntime.importer.graph_io import GraphSpec, Precision

if TYPE_CHECKING:
    from leptond.checkpoint import Checkpoint

__all__ = ["GraphSpec", "Precision", "import_decoder"]


def import_decoder(
    checkpoint: Checkpoint,
    directory: Path,
    precision: Precision,
    progress: Callable[[str, float], None],
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
    try:
        import onnx  # noqa: F401, PLC0415 - part of the `import` extra, absent when serving
    except ImportError as error:
        raise BackendUnavailable(
            "writing ONNX graphs needs the 'onnx' package: pip install 'leptond[import]'"
        ) from error
    from leptond_onnxruntime.importer.decoder import write_decoder  # noqa: PLC0415 - needs onnx

    return write_decoder(checkpoint, directory, precision, progress)
