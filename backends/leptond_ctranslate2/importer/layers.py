"""Parts that every architecture shares: linear layers, norms, embeddings."""

from __future__ import annotations

from typing import Any

from ctranslate2.specs import common_spec

from leptond.checkpoint import Activation
from leptond_ctranslate2.importer.weights import Matrix, WeightReader

__all__ = ["ACTIVATIONS", "set_attention", "set_embedding", "set_linear", "set_norm"]

ACTIVATIONS = {
    Activation.RELU: common_spec.Activation.RELU,
    Activation.GELU: common_spec.Activation.GELU,
    Activation.GELU_TANH: common_spec.Activation.GELUTanh,
    Activation.SILU: common_spec.Activation.SWISH,
}


def set_linear(spec: Any, weights: WeightReader, *parts: str) -> None:
    """Fill a linear layer with the outputs of `parts`, side by side."""
    _set_matrix(spec, weights.matrix(*(f"{part}.weight" for part in parts)))
    biases = [f"{part}.bias" for part in parts]
    if weights.has(biases[0]):
        spec.bias = weights.vector(*biases)


def set_embedding(spec: Any, matrix: Matrix) -> None:
    """Fill a table of embeddings, or an output projection that shares its matrix."""
    _set_matrix(spec, matrix)


def set_norm(spec: Any, weights: WeightReader, name: str) -> None:
    """Fill a LayerNorm, or an RMSNorm, which has no bias."""
    spec.gamma = weights.vector(f"{name}.weight")
    if weights.has(f"{name}.bias"):
        spec.beta = weights.vector(f"{name}.bias")


def set_attention(spec: Any, weights: WeightReader, name: str, *, is_cross: bool = False) -> None:
    """Fill an attention: the projections of one input are one matrix."""
    if is_cross:
        set_linear(spec.linear[0], weights, f"{name}.q")
        set_linear(spec.linear[1], weights, f"{name}.k", f"{name}.v")
    else:
        set_linear(spec.linear[0], weights, *(f"{name}.{part}" for part in "qkv"))
    set_linear(spec.linear[-1], weights, f"{name}.o")


def _set_matrix(spec: Any, matrix: Matrix) -> None:
    spec.weight = matrix.weight
    if matrix.scale is not None:
        spec.weight_scale = matrix.scale
