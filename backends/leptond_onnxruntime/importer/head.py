"""Writes the head graph: hidden rows in; logits, candidates and log-normalisers out."""

from __future__ import annotations

from typing import Any

import numpy as np

from leptond_onnxruntime.importer import graph_io as io
from leptond_onnxruntime.importer.graph_writer import GraphWriter
from leptond_onnxruntime.importer.weight_formats import StoredMatrix

__all__ = ["build_head"]


def build_head(
    graph: GraphWriter,
    projection: StoredMatrix,
    *,
    hidden_size: int,
    vocab_size: int,
    dtype: np.dtype[Any],
) -> None:
    """Add the whole head; everything after the projection is float32."""
    num_candidates = min(io.MAX_CANDIDATES, vocab_size)
    graph.input(io.HIDDEN, dtype, ["rows", hidden_size])
    graph.input(io.REPETITION, np.float32, ["repetition_rows", "repetition_vocab"])
    graph.input(io.BIAS, np.float32, ["bias_rows", "bias_vocab"])
    graph.input(io.TEMPERATURE, np.float32, ["temperature_rows", 1])
    if dtype == np.float32:
        projection.multiply(graph, io.HIDDEN, io.LOGITS)
    else:
        narrow = projection.multiply(graph, io.HIDDEN, "narrow_logits")
        graph.node("Cast", [narrow], io.LOGITS, to=1)
    _log_normalizer(graph, io.LOGITS, io.RAW_LOG_NORMALIZER)
    processed = _process(graph)
    graph.constant("num_candidates", [num_candidates], np.int64)
    graph.node(
        "TopK",
        [processed, "num_candidates"],
        [io.CANDIDATE_LOGITS, io.CANDIDATE_IDS],
        axis=-1,
        largest=1,
        sorted=1,
    )
    _log_normalizer(graph, processed, io.LOG_NORMALIZER)
    graph.output(io.LOGITS, np.float32, ["rows", vocab_size])
    graph.output(io.RAW_LOG_NORMALIZER, np.float32, ["rows"])
    graph.output(io.CANDIDATE_LOGITS, np.float32, ["rows", num_candidates])
    graph.output(io.CANDIDATE_IDS, np.int64, ["rows", num_candidates])
    graph.output(io.LOG_NORMALIZER, np.float32, ["rows"])


def _process(graph: GraphWriter) -> str:
    zero = graph.constant("zero", 0, np.float32)
    is_positive = graph.node("Greater", [io.LOGITS, zero], "is_positive")
    divided = graph.node("Div", [io.LOGITS, io.REPETITION], "divided")
    multiplied = graph.node("Mul", [io.LOGITS, io.REPETITION], "multiplied")
    penalised = graph.node("Where", [is_positive, divided, multiplied], "penalised")
    biased = graph.node("Add", [penalised, io.BIAS], "biased")
    return graph.node("Div", [biased, io.TEMPERATURE], "processed")


def _log_normalizer(graph: GraphWriter, logits: str, name: str) -> None:
    axes = graph.constant("last_axis", [-1], np.int64)
    graph.node("ReduceLogSumExp", [logits, axes], name, keepdims=0)
