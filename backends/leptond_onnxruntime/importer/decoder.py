"""Writes a checkpoint as the two graphs of a decoder, their weights and their description."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leptond.backend.processor import cpu_model, instruction_sets
from leptond.checkpoint import Checkpoint, DecoderArchitecture, DecoderCheckpoint
from leptond.errors import UnsupportedCapability
from leptond_onnxruntime.importer import graph_io as io
from leptond_onnxruntime.importer.body import BodyBuilder
from leptond_onnxruntime.importer.graph_writer import GraphWriter, WeightFile
from leptond_onnxruntime.importer.head import build_head
from leptond_onnxruntime.importer.weight_formats import Blockwise8, Float, WeightFormat

__all__ = ["write_decoder"]

Progress = Callable[[str, float], None]

# GroupQueryAttention with rotary embedding inside checks both sizes when it runs.
_ATTENTION_MULTIPLE = 16
_FLOAT32, _FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)


@dataclass(frozen=True, slots=True)
class _Recipe:
    """Weights by format; activations, cache and hidden rows by dtype."""

    weights: WeightFormat
    dtype: np.dtype[Any]


_RECIPES = {
    io.Precision.FLOAT32: _Recipe(Float(_FLOAT32), _FLOAT32),
    io.Precision.INT8: _Recipe(Blockwise8(), _FLOAT32),
    io.Precision.FLOAT16: _Recipe(Float(_FLOAT16), _FLOAT16),
}


def write_decoder(
    checkpoint: Checkpoint, directory: Path, precision: io.Precision, progress: Progress
) -> io.GraphSpec:
    """Do the work of `leptond_onnxruntime.importer.import_decoder`."""
    if not isinstance(checkpoint, DecoderCheckpoint):
        family = checkpoint.architecture.family
        raise UnsupportedCapability(
            f"{checkpoint.path}: decoders and encoders are imported, not {family}"
        )
    architecture = checkpoint.architecture
    _refuse_unbuilt(checkpoint.path, architecture)
    recipe = _RECIPES[precision]
    num_parts = architecture.num_layers + 2
    progress("embedding", 0.0)
    with WeightFile(directory / io.WEIGHTS_FILE) as weights:
        embedding = recipe.weights.store(weights, checkpoint.tensor("embedding.weight"))
        body = GraphWriter("body", weights)
        builder = BodyBuilder(body, checkpoint, recipe.weights, recipe.dtype)
        builder.build(
            embedding,
            lambda done: progress(
                f"layer {done} of {architecture.num_layers}", (1 + done) / num_parts
            ),
        )
        projection = embedding
        if not architecture.has_tied_embedding:
            projection = recipe.weights.store(weights, checkpoint.tensor("head.weight"))
        head = GraphWriter("head", weights)
        build_head(
            head,
            projection,
            hidden_size=architecture.hidden_size,
            vocab_size=architecture.vocab_size,
            dtype=recipe.dtype,
        )
    body.save(directory / io.BODY_FILE)
    head.save(directory / io.HEAD_FILE)
    spec = _spec(architecture, precision, recipe.dtype)
    spec.write(directory)
    progress("graphs", 1.0)
    return spec


def _refuse_unbuilt(path: Path, architecture: DecoderArchitecture) -> None:
    if architecture.has_qk_norm:
        raise UnsupportedCapability(f"{path}: query and key norms are not supported yet")
    sizes = {"head size": architecture.head_dim, "rotary size": architecture.rotary.dim}
    for name, size in sizes.items():
        if size % _ATTENTION_MULTIPLE:
            raise UnsupportedCapability(
                f"{path}: a {name} of {size} is not supported: "
                f"multiples of {_ATTENTION_MULTIPLE} are"
            )


def _spec(
    architecture: DecoderArchitecture, precision: io.Precision, dtype: np.dtype[Any]
) -> io.GraphSpec:
    return io.GraphSpec(
        precision=precision,
        vocab_size=architecture.vocab_size,
        num_layers=architecture.num_layers,
        hidden_size=architecture.hidden_size,
        num_kv_heads=architecture.num_kv_heads,
        head_dim=architecture.head_dim,
        max_positions=architecture.max_positions,
        kv_dtype=dtype.name,
        hidden_dtype=dtype.name,
        num_candidates=min(io.MAX_CANDIDATES, architecture.vocab_size),
        cpu_model=cpu_model(),
        instruction_sets=instruction_sets(),
    )
