"""Vectors as a caller wants them: cut, normalised, packed. Pure numpy; off the loop for many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from leptond.checkpoint import EncoderDefaults
from leptond.errors import InvalidRequest, UnsupportedCapability
from leptond.server.convert import requests
from leptond.v1 import embedding_pb2

__all__ = ["VectorOptions", "normalized", "pack", "pooling_option", "prompt_of", "vector_options"]

FloatArray = npt.NDArray[np.float32]

_INT8_LIMIT = 127
_POOLINGS = {
    embedding_pb2.POOLING_MEAN: "mean",
    embedding_pb2.POOLING_CLS: "cls",
    embedding_pb2.POOLING_LAST_TOKEN: "last",
}
_POOLING_OF = {name: value for value, name in _POOLINGS.items()}


@dataclass(frozen=True, slots=True)
class VectorOptions:
    """What is done with the vectors that the model gives.

    Attributes:
        normalize: to length 1, after cutting.
        dimensions: numbers kept of each.
        element_type: of `embedding_pb2.ElementType`, never UNSPECIFIED.
        pooling: of `embedding_pb2.Pooling`: how they were made.
    """

    normalize: bool
    dimensions: int
    element_type: embedding_pb2.ElementType.ValueType
    pooling: embedding_pb2.Pooling.ValueType


def vector_options(wire: embedding_pb2.EmbedOptions, defaults: EncoderDefaults) -> VectorOptions:
    """Read the options of a call; what is not set is as the model's own files say.

    Raises:
        InvalidRequest: dimensions out of range, or an element type that does not exist.
        UnsupportedCapability: another form than one dense vector.
    """
    dense = (
        embedding_pb2.EMBEDDING_FORM_UNSPECIFIED,
        embedding_pb2.EMBEDDING_FORM_DENSE,
    )
    if wire.form not in dense:
        msg = "embedding.form: the model gives one dense vector for a text"
        raise UnsupportedCapability(msg, field="embedding.form")
    dimensions = requests.optional(wire, "dimensions", default=defaults.dimensions)
    if not 1 <= dimensions <= defaults.dimensions:
        msg = f"embedding.dimensions is {dimensions}; the model has from 1 to {defaults.dimensions}"
        raise InvalidRequest(msg, field="embedding.dimensions")
    element_type = wire.element_type or embedding_pb2.ELEMENT_TYPE_FLOAT32
    if element_type not in _PACKERS:
        msg = f"embedding.element_type is {element_type}, which is none"
        raise InvalidRequest(msg, field="embedding.element_type")
    return VectorOptions(
        normalize=requests.optional(wire, "normalize", default=defaults.normalize),
        dimensions=dimensions,
        element_type=element_type,
        pooling=wire.pooling or _POOLING_OF[defaults.pooling],
    )


def pooling_option(wire: embedding_pb2.EmbedOptions) -> Mapping[str, str]:
    """The row option that asks for another pooling than the model's own; empty for that.

    Raises:
        UnsupportedCapability: a pooling that no engine here has.
    """
    if not wire.pooling:
        return {}
    kind = _POOLINGS.get(wire.pooling)
    if kind is None:
        msg = f"embedding.pooling: {', '.join(_POOLING_OF)} are supported"
        raise UnsupportedCapability(msg, field="embedding.pooling")
    return {"pooling": kind}


def prompt_of(wire: embedding_pb2.EmbedOptions, defaults: EncoderDefaults) -> str:
    """What is put in front of each text.

    Raises:
        InvalidRequest: two prompts, or a name that the model's files do not define.
    """
    if wire.prompt and wire.prompt_name:
        msg = "embedding.prompt and embedding.prompt_name exclude each other"
        raise InvalidRequest(msg, field="embedding.prompt")
    name = wire.prompt_name or (None if wire.prompt else defaults.default_prompt)
    if name is None:
        return wire.prompt
    if name not in defaults.prompts:
        known = ", ".join(sorted(defaults.prompts)) or "none"
        msg = f"embedding.prompt_name is {name[:64]!r}; the model defines {known}"
        raise InvalidRequest(msg, field="embedding.prompt_name")
    return defaults.prompts[name]


def normalized(vectors: FloatArray) -> FloatArray:
    """Scale each vector to length 1; one of length 0 stays as it is."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    safe = np.where(lengths == 0, 1, lengths).astype(np.float32)
    scaled: FloatArray = np.divide(vectors, safe, dtype=np.float32)
    return scaled


def pack(vectors: FloatArray, options: VectorOptions) -> embedding_pb2.EmbeddingBatch:
    """Cut, normalise and pack vectors, float32 `[num_vectors, dimensions of the model]`."""
    kept = np.ascontiguousarray(vectors[:, : options.dimensions])
    if options.normalize:
        kept = normalized(kept)
    batch = embedding_pb2.EmbeddingBatch(
        element_type=options.element_type,
        dimensions=options.dimensions,
        num_vectors=len(kept),
        pooling=options.pooling,
        normalized=options.normalize,
    )
    batch.data, scales = _PACKERS[options.element_type](kept)
    batch.scales.extend(scales)
    return batch


def _as_float32(vectors: FloatArray) -> tuple[bytes, list[float]]:
    return vectors.astype("<f4", copy=False).tobytes(), []


def _as_float16(vectors: FloatArray) -> tuple[bytes, list[float]]:
    limit = float(np.finfo(np.float16).max)  # beyond it there would be infinities
    return np.clip(vectors, -limit, limit).astype("<f2").tobytes(), []


def _as_int8(vectors: FloatArray) -> tuple[bytes, list[float]]:
    """Symmetric: the largest magnitude of a vector is 127."""
    scales = np.abs(vectors).max(axis=1) / _INT8_LIMIT
    safe = np.where(scales == 0, 1, scales)
    return np.rint(vectors / safe[:, None]).astype(np.int8).tobytes(), scales.tolist()


def _as_bits(vectors: FloatArray) -> tuple[bytes, list[float]]:
    return np.packbits(vectors > 0, axis=1).tobytes(), []


_PACKERS: Mapping[int, Callable[[FloatArray], tuple[bytes, list[float]]]] = {
    embedding_pb2.ELEMENT_TYPE_FLOAT32: _as_float32,
    embedding_pb2.ELEMENT_TYPE_FLOAT16: _as_float16,
    embedding_pb2.ELEMENT_TYPE_INT8: _as_int8,
    embedding_pb2.ELEMENT_TYPE_BINARY: _as_bits,
}
