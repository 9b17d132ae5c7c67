"""Writes the head graph: hidden rows in; logits, candidates and log-normalisers out.

At 16 rows of 49 152 logits one pass over the logits costs a quarter of a millisecond, so a pass
that a step does not need is not made: two `If` nodes look at the inputs. The plain operators
`ReduceLogSumExp` and `Where` take ten times what the same result costs below
(docs/adr/0003-onnx-graphs.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from leptond_onnxruntime.importer import graph_io as io
from leptond_onnxruntime.importer.graph_writer import GraphWriter
from leptond_onnxruntime.importer.weight_formats import StoredMatrix

__all__ = ["build_head"]

_RANKED: dict[str, np.dtype[Any]] = {
    io.CANDIDATE_LOGITS: np.dtype(np.float32),
    io.CANDIDATE_IDS: np.dtype(np.int64),
    io.LOG_NORMALIZER: np.dtype(np.float32),
}


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
    graph.constant("num_candidates", [num_candidates], np.int64)
    graph.constant("last_axis", [-1], np.int64)
    graph.constant("zero", 0, np.float32)
    graph.constant("one", 1, np.float32)

    _project(graph, projection, dtype)
    largest = graph.node("ReduceMax", [io.LOGITS, "last_axis"], "largest")
    _log_normalizer(graph, io.LOGITS, largest, io.RAW_LOG_NORMALIZER)
    adjusted, plain = graph.branch("adjusted"), graph.branch("plain")
    graph.choose(
        _is_adjusted(graph),
        (adjusted, _rank(adjusted, _adjust(adjusted))),
        (plain, _rank(plain, io.LOGITS, io.RAW_LOG_NORMALIZER)),
        _RANKED,
    )

    graph.output(io.LOGITS, np.float32, ["rows", vocab_size])
    graph.output(io.RAW_LOG_NORMALIZER, np.float32, ["rows"])
    graph.output(io.CANDIDATE_LOGITS, np.float32, ["rows", num_candidates])
    graph.output(io.CANDIDATE_IDS, np.int64, ["rows", num_candidates])
    graph.output(io.LOG_NORMALIZER, np.float32, ["rows"])


def _project(graph: GraphWriter, projection: StoredMatrix, dtype: np.dtype[Any]) -> None:
    if dtype == np.float32:
        projection.multiply(graph, io.HIDDEN, io.LOGITS)
    else:
        narrow = projection.multiply(graph, io.HIDDEN, "narrow_logits")
        graph.cast(narrow, io.LOGITS, np.float32)


def _is_adjusted(graph: GraphWriter) -> str:
    """Add the flag whether a repetition penalty or a bias is given, that is, not `[1, 1]`."""
    sizes = [graph.node("Size", [name], f"{name}.size") for name in (io.REPETITION, io.BIAS)]
    total = graph.node("Add", sizes, "adjustments.size")
    absent = graph.constant("adjustments.absent", len(sizes), np.int64)
    return graph.node("Greater", [total, absent], "is_adjusted")


def _adjust(graph: GraphWriter) -> str:
    """Add the penalty, `l / p` for positive logits and `l * p` for the others, then the bias."""
    positive = graph.node("Relu", [io.LOGITS], "positive")
    negative = graph.node("Sub", [io.LOGITS, positive], "negative")
    divided = graph.node("Div", [positive, io.REPETITION], "divided")
    multiplied = graph.node("Mul", [negative, io.REPETITION], "multiplied")
    penalised = graph.node("Add", [divided, multiplied], "penalised")
    return graph.node("Add", [penalised, io.BIAS], "biased")


def _rank(graph: GraphWriter, logits: str, log_normalizer: str | None = None) -> list[str]:
    """Add what is left to do with `logits`, temperature first; return the names of `_RANKED`.

    Dividing by a temperature keeps the order, so candidates are taken before it. If the
    log-normaliser of `logits` is known, it is computed again only for another temperature.
    """
    ids = f"{graph.prefix}ids"
    top = graph.node("TopK", [logits, "num_candidates"], ["top", "ids"], axis=-1)
    candidates = graph.node("Div", [top, io.TEMPERATURE], "candidates")
    largest = graph.node("ReduceMax", [candidates, "last_axis"], "largest_candidate")
    if log_normalizer is None:
        return [candidates, ids, _tempered_log_normalizer(graph, logits, largest)]
    tempered, known = graph.branch("tempered"), graph.branch("known")
    chosen = graph.choose(
        _is_tempered(graph),
        (tempered, [_tempered_log_normalizer(tempered, logits, largest)]),
        (known, [known.node("Identity", [log_normalizer], "same")]),
        {"chosen": np.dtype(np.float32)},
    )
    return [candidates, ids, *chosen]


def _is_tempered(graph: GraphWriter) -> str:
    """Add the flag whether any row has a temperature other than 1."""
    difference = graph.node("Sub", [io.TEMPERATURE, "one"], "difference")
    distance = graph.node("Abs", [difference], "distance")
    farthest = graph.node("ReduceMax", [distance], "farthest", keepdims=0)
    return graph.node("Greater", [farthest, "zero"], "is_tempered")


def _tempered_log_normalizer(graph: GraphWriter, logits: str, largest: str) -> str:
    tempered = graph.node("Div", [logits, io.TEMPERATURE], "tempered")
    return _log_normalizer(graph, tempered, largest, "log_normalizer")


def _log_normalizer(graph: GraphWriter, logits: str, largest: str, name: str) -> str:
    """Add `name [rows]`: the largest logit minus the logarithm of its probability.

    That probability is at least 1 / vocab_size, so its logarithm is exact enough.
    """
    probabilities = graph.node("Softmax", [logits], f"{name}.probabilities", axis=-1)
    best = graph.node("ReduceMax", [probabilities, "last_axis"], f"{name}.best")
    logarithm = graph.node("Log", [best], f"{name}.log_best")
    column = graph.node("Sub", [largest, logarithm], f"{name}.column")
    return graph.node("Squeeze", [column, "last_axis"], name)
