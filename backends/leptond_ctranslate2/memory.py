"""What a model takes, from file sizes and its description; nothing is loaded.

Rows are counted at full length. A generator keeps keys and values of every token; encoders and
the encoders of translators need one layer's activations at a time.
"""

from __future__ import annotations

from leptond.backend import MemoryEstimate, ModelSource, SessionOptions
from leptond.errors import ModelFailed
from leptond_ctranslate2.description import WEIGHTS_FILE, EngineDescription, ModelKind

__all__ = ["estimate_model"]

_FLOAT_BYTES = 4  # CPUs compute in float32; a GPU's narrower types take less than estimated
# Resident bytes per byte of the file. Half as much again for int8 (see tests/integration):
# oneDNN keeps compensations, and a load has both copies of a matrix for a moment.
_RESIDENT_PER_FILE_BYTE = 1.1
# Copies of the hidden rows that are alive inside a layer: input, residual, q, k, v, output.
_HIDDEN_COPIES = 6


def estimate_model(source: ModelSource, options: SessionOptions) -> MemoryEstimate:
    """Return weights, and per row of a batch what it takes at full length.

    Raises:
        ModelFailed: the files are not those of a model.
    """
    description = EngineDescription.read(source.directory)
    path = source.directory / WEIGHTS_FILE
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelFailed(f"{path} cannot be read: {error}") from error
    length = min(options.max_tokens or description.max_positions, description.max_positions)
    return MemoryEstimate(
        weights_bytes=int(size * _RESIDENT_PER_FILE_BYTE),
        slot_bytes=_FLOAT_BYTES * (_activations(description, length) + _kept(description, length)),
    )


def _activations(description: EngineDescription, length: int) -> int:
    """Elements of one layer over a whole row."""
    sizes = description.sizes
    per_token = _HIDDEN_COPIES * sizes.hidden_size + 2 * sizes.ffn_size
    return length * per_token + sizes.num_heads * length * length


def _kept(description: EngineDescription, length: int) -> int:
    """Elements of keys and values of a whole row, and of a translator's source."""
    sizes = description.sizes
    per_token = 2 * sizes.num_layers * sizes.kv_size
    if description.kind is ModelKind.TRANSLATOR:
        return per_token * (length + description.max_answer_tokens)
    return per_token * length
