"""Writes a checkpoint as the one graph of an encoder, its weights, its description and its head.

The linear layers are two-dimensional over the tokens of all rows, without the padding; only
attention sees rows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from leptond.backend.heads import Head
from leptond.backend.processor import cpu_model, instruction_sets
from leptond.checkpoint import Activation, EncoderCheckpoint
from leptond.errors import UnsupportedCapability
from leptond_onnxruntime.importer import encoder_io as io
from leptond_onnxruntime.importer.graph_io import WEIGHTS_FILE, Precision
from leptond_onnxruntime.importer.graph_writer import MICROSOFT, GraphWriter, WeightFile
from leptond_onnxruntime.importer.weight_formats import Blockwise8, Float, WeightFormat

__all__ = ["write_encoder"]

Progress = Callable[[str, float], None]

_FORMATS: dict[Precision, WeightFormat] = {
    Precision.FLOAT32: Float(np.dtype(np.float32)),
    Precision.INT8: Blockwise8(),
}
_ACTIVATIONS = {
    Activation.RELU: ("Relu", ""),
    Activation.GELU: ("Gelu", MICROSOFT),
    Activation.GELU_TANH: ("FastGelu", MICROSOFT),
}


def write_encoder(
    checkpoint: EncoderCheckpoint, directory: Path, precision: Precision, progress: Progress
) -> io.EncoderSpec:
    """Do the work of `leptond_onnxruntime.importer.import_encoder`."""
    a = checkpoint.architecture
    if precision not in _FORMATS:
        raise UnsupportedCapability(
            f"{checkpoint.path}: encoders are written as {', '.join(_FORMATS)}, not {precision}"
        )
    if a.activation not in _ACTIVATIONS:
        raise UnsupportedCapability(f"{checkpoint.path}: activation {a.activation}")
    head = checkpoint.head()
    Head(head.task, head.operations, head.arrays).save(directory)
    with WeightFile(directory / WEIGHTS_FILE) as weights:
        graph = GraphWriter("encoder", weights)
        _EncoderBuilder(graph, checkpoint, _FORMATS[precision]).build(progress)
    graph.save(directory / io.ENCODER_FILE)
    spec = io.EncoderSpec(
        precision=precision,
        family=a.family,
        vocab_size=a.vocab_size,
        hidden_size=a.hidden_size,
        num_heads=a.num_heads,
        ffn_size=a.ffn_size,
        max_positions=min(a.max_positions, checkpoint.text.max_tokens),
        num_token_types=a.num_token_types,
        cpu_model=cpu_model(),
        instruction_sets=instruction_sets(),
    )
    spec.write(directory)
    progress("graph", 1.0)
    return spec


class _EncoderBuilder:
    """Adds the nodes of one encoder to a graph."""

    def __init__(
        self, graph: GraphWriter, checkpoint: EncoderCheckpoint, weight_format: WeightFormat
    ) -> None:
        self._graph = graph
        self._checkpoint = checkpoint
        self._architecture = checkpoint.architecture
        self._format = weight_format

    def build(self, progress: Progress) -> None:
        """Add everything."""
        graph, num_layers = self._graph, self._architecture.num_layers
        for name in (io.INPUT_IDS, io.ATTENTION_MASK):
            graph.input(name, np.int64, ["rows", "longest"])
        if self._architecture.num_token_types:
            graph.input(io.TOKEN_TYPE_IDS, np.int64, ["rows", "longest"])
        self._add_layout()
        progress("embedding", 0.0)
        x = self._embed()
        for layer in range(num_layers):
            progress(f"layer {layer + 1} of {num_layers}", (1 + layer) / (num_layers + 1))
            x = self._layer(f"layers.{layer}", x)
        graph.node("Gather", [x, "grid"], io.LAST_HIDDEN_STATE)
        shape: list[int | str] = ["rows", "longest", self._architecture.hidden_size]
        graph.output(io.LAST_HIDDEN_STATE, np.float32, shape)

    def _add_layout(self) -> None:
        """Add the maps between cells `[rows, longest]` and the N tokens in them.

        valid   int64 [N]              cell of each token
        grid    int64 [rows, longest]  token of each cell; in padding, the last one before it
        """
        graph, hidden_size = self._graph, self._architecture.hidden_size
        graph.constant("flat", [-1], np.int64)
        graph.constant("zero", 0, np.int64)
        graph.constant("one", 1, np.int64)
        graph.constant("token_shape", [-1, hidden_size], np.int64)
        shape = graph.node("Shape", [io.INPUT_IDS], "shape")
        mask = graph.node("Reshape", [io.ATTENTION_MASK, "flat"], "flat_mask")
        found = graph.node("NonZero", [mask], "nonzero")
        graph.node("Reshape", [found, "flat"], "valid")
        counts = graph.node("CumSum", [mask, "zero"], "counts")
        flat_grid = graph.node("Sub", [counts, "one"], "flat_grid")
        graph.node("Reshape", [flat_grid, shape], "grid")
        longest = graph.node("Gather", [shape, "one"], "longest")
        graph.node("Mod", ["valid", longest], "positions")
        graph.cast(io.ATTENTION_MASK, "key_mask", np.int32)

    def _embed(self) -> str:
        graph, tensor = self._graph, self._checkpoint.tensor
        words = self._format.store(graph.weights, tensor("embedding.weight"))
        x = words.rows(graph, self._packed(io.INPUT_IDS), "embedding")
        if self._architecture.num_token_types:
            types = self._rows("token_type_embedding", self._packed(io.TOKEN_TYPE_IDS))
            x = graph.node("Add", [x, types], "typed_embedding")
        return self._add_and_norm(
            x, self._rows("position_embedding", "positions"), "embedding_norm"
        )

    def _packed(self, name: str) -> str:
        """Add the tokens' own values of an input `[rows, longest]`."""
        flat = self._graph.node("Reshape", [name, "flat"], f"{name}.flat")
        return self._graph.node("Gather", [flat, "valid"], f"{name}.packed")

    def _rows(self, table: str, ids: str) -> str:
        return self._graph.node("Gather", [self._vector(f"{table}.weight"), ids], table)

    def _layer(self, prefix: str, x: str) -> str:
        attended = self._attention(f"{prefix}.attention", x)
        x = self._add_and_norm(attended, x, f"{prefix}.attention_norm")
        up = self._linear(x, f"{prefix}.ffn.up", [f"{prefix}.ffn.up"])
        operator, domain = _ACTIVATIONS[self._architecture.activation]
        active = self._graph.node(operator, [up], f"{prefix}.ffn.active", domain)
        down = self._linear(active, f"{prefix}.ffn.down", [f"{prefix}.ffn.down"])
        return self._add_and_norm(down, x, f"{prefix}.ffn_norm")

    def _attention(self, prefix: str, x: str) -> str:
        graph = self._graph
        together = self._linear(x, f"{prefix}.qkv", [f"{prefix}.{part}" for part in "qkv"])
        by_row = graph.node("Gather", [together, "grid"], f"{prefix}.by_row")
        parts = [f"{prefix}.{part}.by_row" for part in "qkv"]
        graph.node("Split", [by_row], parts, axis=-1, num_outputs=len(parts))
        attended = graph.node(
            "MultiHeadAttention",
            [*parts, "", "key_mask"],
            f"{prefix}.attended",
            MICROSOFT,
            num_heads=self._architecture.num_heads,
        )
        flat = graph.node("Reshape", [attended, "token_shape"], f"{prefix}.flat")
        unpadded = graph.node("Gather", [flat, "valid"], f"{prefix}.unpadded")
        return self._linear(unpadded, f"{prefix}.o", [f"{prefix}.o"])

    def _linear(self, x: str, name: str, parts: list[str]) -> str:
        """Add one linear layer over the outputs of `parts`, side by side."""
        tensor, graph = self._checkpoint.tensor, self._graph
        matrix = np.concatenate([tensor(f"{part}.weight") for part in parts])
        bias = np.concatenate([tensor(f"{part}.bias") for part in parts])
        stored = self._format.store(graph.weights, matrix)
        return stored.multiply(
            graph, x, name, graph.weight(f"{name}.bias", graph.weights.store(bias))
        )

    def _add_and_norm(self, x: str, residual: str, norm: str) -> str:
        inputs = [x, residual, self._vector(f"{norm}.weight"), self._vector(f"{norm}.bias")]
        epsilon = self._architecture.norm_epsilon
        return self._graph.node("SkipLayerNormalization", inputs, norm, MICROSOFT, epsilon=epsilon)

    def _vector(self, name: str) -> str:
        """Refer to a tensor that is float32 in every precision."""
        return self._graph.weight(name, self._graph.weights.store(self._checkpoint.tensor(name)))
