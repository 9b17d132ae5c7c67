"""Writes the body graph: token ids and KV cache in, normalised hidden rows out.

The linear layers are two-dimensional over all new tokens of a step; only attention sees rows. The
last layer, after its attention, works on the wanted rows alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from leptond.checkpoint import DecoderCheckpoint
from leptond_onnxruntime.importer import graph_io as io
from leptond_onnxruntime.importer.graph_writer import MICROSOFT, GraphWriter
from leptond_onnxruntime.importer.rotary_tables import rotary_tables
from leptond_onnxruntime.importer.weight_formats import StoredMatrix, WeightFormat

__all__ = ["BodyBuilder"]

_NUM_UNUSED_ATTENTION_INPUTS = 7


class BodyBuilder:
    """Adds the nodes of one decoder to a graph."""

    def __init__(
        self,
        graph: GraphWriter,
        checkpoint: DecoderCheckpoint,
        weight_format: WeightFormat,
        dtype: np.dtype[Any],
    ) -> None:
        self._graph = graph
        self._checkpoint = checkpoint
        self._architecture = checkpoint.architecture
        self._format = weight_format
        self._dtype = dtype

    def build(self, embedding: StoredMatrix, on_layer: Callable[[int], None]) -> None:
        """Add everything; `on_layer` is called with the number of layers done."""
        graph, architecture = self._graph, self._architecture
        self._declare_inputs()
        self._add_constants()
        residual = embedding.rows(graph, io.INPUT_IDS, "embedding")
        x = graph.node(
            "SimplifiedLayerNormalization",
            [residual, self._gain("layers.0.attention_norm")],
            "layers.0.attention_norm",
            axis=-1,
            epsilon=architecture.norm_epsilon,
        )
        for layer in range(architecture.num_layers):
            x, residual = self._layer(layer, x, residual)
            on_layer(layer + 1)
        graph.output(io.HIDDEN, self._dtype, ["wanted_rows", architecture.hidden_size])

    def _declare_inputs(self) -> None:
        graph, architecture = self._graph, self._architecture
        graph.input(io.INPUT_IDS, np.int64, ["tokens"])
        graph.input(io.GRID, np.int64, ["rows", "longest"])
        graph.input(io.VALID, np.int64, ["tokens"])
        graph.input(io.QUERY_SEQLENS, np.int32, ["rows"])
        graph.input(io.SEQLENS_K, np.int32, ["rows"])
        graph.input(io.TOTAL, np.int32, [])
        graph.input(io.LOGIT_ROWS, np.int64, ["wanted_rows"])
        cache: list[int | str] = [
            "rows",
            architecture.num_kv_heads,
            "max_len",
            architecture.head_dim,
        ]
        for layer in range(architecture.num_layers):
            for name in (io.past_key(layer), io.past_value(layer)):
                graph.input(name, self._dtype, cache)
            for name in (io.present_key(layer), io.present_value(layer)):
                graph.output(name, self._dtype, cache)

    def _add_constants(self) -> None:
        architecture, graph = self._architecture, self._graph
        tables = rotary_tables(architecture.rotary, architecture.max_positions)
        for name, table in zip(("cosines", "sines"), tables, strict=True):
            graph.weight(name, graph.weights.store(table.astype(self._dtype)))
        attention_size = architecture.num_heads * architecture.head_dim
        graph.constant("attention_shape", [-1, attention_size], np.int64)

    def _layer(self, layer: int, x: str, residual: str) -> tuple[str, str]:
        graph, num_layers = self._graph, self._architecture.num_layers
        prefix = f"layers.{layer}"
        is_last = layer == num_layers - 1
        rows = io.VALID
        if is_last:
            rows = graph.node("Gather", [io.VALID, io.LOGIT_ROWS], "wanted_valid")
            residual = graph.node("Gather", [residual, io.LOGIT_ROWS], "wanted_residual")
        attention = self._attention(layer, x, rows)
        x, residual = self._add_and_norm(attention, residual, f"{prefix}.ffn_norm")
        ffn = self._feed_forward(prefix, x)
        if is_last:
            return self._add_and_norm(ffn, residual, "norm", output=io.HIDDEN)
        return self._add_and_norm(ffn, residual, f"layers.{layer + 1}.attention_norm")

    def _attention(self, layer: int, x: str, rows: str) -> str:
        graph, architecture = self._graph, self._architecture
        prefix = f"layers.{layer}.attention"
        packed = self._linear(x, f"{prefix}.qkv", [f"{prefix}.{part}" for part in "qkv"])
        by_row = graph.node("Gather", [packed, io.GRID], f"{prefix}.by_row")
        window = architecture.sliding_window
        attended = graph.node(
            "GroupQueryAttention",
            [
                by_row,
                "",
                "",
                io.past_key(layer),
                io.past_value(layer),
                io.SEQLENS_K,
                io.TOTAL,
                "cosines",
                "sines",
                *[""] * _NUM_UNUSED_ATTENTION_INPUTS,
                io.QUERY_SEQLENS,
            ],
            [f"{prefix}.attended", io.present_key(layer), io.present_value(layer)],
            MICROSOFT,
            num_heads=architecture.num_heads,
            kv_num_heads=architecture.num_kv_heads,
            scale=architecture.attention_scale,
            local_window_size=-1 if window is None else window,
            do_rotary=1,
            rotary_interleaved=0,
        )
        flat = graph.node("Reshape", [attended, "attention_shape"], f"{prefix}.flat")
        unpadded = graph.node("Gather", [flat, rows], f"{prefix}.unpadded")
        return self._linear(unpadded, f"{prefix}.o", [f"{prefix}.o"])

    def _feed_forward(self, prefix: str, x: str) -> str:
        graph = self._graph
        both = self._linear(x, f"{prefix}.ffn.both", [f"{prefix}.ffn.gate", f"{prefix}.ffn.up"])
        gate, up = f"{prefix}.ffn.gate", f"{prefix}.ffn.up"
        graph.node("Split", [both], [gate, up], axis=-1, num_outputs=2)
        # QuickGelu with alpha 1 is x * sigmoid(x), that is SiLU, in one node.
        active = graph.node("QuickGelu", [gate], f"{prefix}.ffn.active", MICROSOFT, alpha=1.0)
        gated = graph.node("Mul", [active, up], f"{prefix}.ffn.gated")
        return self._linear(gated, f"{prefix}.ffn.down", [f"{prefix}.ffn.down"])

    def _linear(self, x: str, name: str, parts: list[str]) -> str:
        """Add one linear layer over the outputs of `parts`, side by side."""
        checkpoint, graph = self._checkpoint, self._graph
        matrix = np.concatenate([checkpoint.tensor(f"{part}.weight") for part in parts])
        stored = self._format.store(graph.weights, matrix)
        bias = None
        if self._has_bias(parts[0]):
            values = np.concatenate([checkpoint.tensor(f"{part}.bias") for part in parts])
            bias = graph.weight(f"{name}.bias", graph.weights.store(values.astype(self._dtype)))
        return stored.multiply(graph, x, name, bias)

    def _has_bias(self, part: str) -> bool:
        architecture = self._architecture
        if ".ffn." in part:
            return architecture.has_ffn_bias
        if part.endswith(".o"):
            return architecture.has_attention_output_bias
        return architecture.has_attention_bias

    def _add_and_norm(
        self, x: str, residual: str, norm: str, output: str | None = None
    ) -> tuple[str, str]:
        """Return the normalised sum and the sum."""
        total = f"{norm}.residual"
        normalised = self._graph.node(
            "SkipSimplifiedLayerNormalization",
            [x, residual, self._gain(norm)],
            [output or norm, "", "", total],
            MICROSOFT,
            epsilon=self._architecture.norm_epsilon,
        )
        return normalised, total

    def _gain(self, norm: str) -> str:
        gain = self._checkpoint.tensor(f"{norm}.weight").astype(self._dtype)
        return self._graph.weight(f"{norm}.gain", self._graph.weights.store(gain))
