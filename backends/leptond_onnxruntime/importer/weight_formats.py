"""How a matrix is kept and multiplied: the one place that differs between precisions.

A format stores a `[out, in]` matrix and returns an object that adds the nodes which use it. Body
and head ask for nothing else, so a new kind of linear layer is a new class here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from leptond_onnxruntime.importer.graph_writer import (
    MICROSOFT,
    GraphWriter,
    StoredTensor,
    WeightFile,
)

__all__ = ["Blockwise8", "Float", "StoredMatrix", "WeightFormat", "quantize_blockwise"]

_BLOCK_SIZE = 32
_ZERO_POINT = 128
_MAX_LEVEL = 127
# Rows quantised at once: the float copies that it takes stay small beside a large embedding.
_SLAB_ROWS = 1024
# Accumulate in int8: activations are quantised by block. Lower levels dequantise the weights at
# every call, which is many times slower.
_ACCURACY_LEVEL = 4


class StoredMatrix(Protocol):
    """A stored `[out, in]` matrix that any graph over the same weight file may use."""

    def multiply(self, graph: GraphWriter, x: str, name: str, bias: str | None = None) -> str:
        """Add `x [n, in] -> name [n, out]`, with `bias [out]` added if there is one."""

    def rows(self, graph: GraphWriter, ids: str, name: str) -> str:
        """Add the look-up of rows `ids [n] -> name [n, in]`."""


class WeightFormat(Protocol):
    """Stores matrices in one precision."""

    def store(self, weights: WeightFile, matrix: npt.NDArray[np.float32]) -> StoredMatrix:
        """Write `matrix [out, in]` and return what uses it."""


@dataclass(frozen=True, slots=True)
class Float:
    """Plain floating point, float32 or float16; weights and activations alike."""

    dtype: np.dtype[Any]

    def store(self, weights: WeightFile, matrix: npt.NDArray[np.float32]) -> StoredMatrix:
        """Write `matrix` as it is, in `dtype`."""
        return _FloatMatrix(weights.store(matrix.astype(self.dtype, copy=False)))


@dataclass(frozen=True, slots=True)
class _FloatMatrix:
    stored: StoredTensor

    def multiply(self, graph: GraphWriter, x: str, name: str, bias: str | None = None) -> str:
        matrix = graph.weight(f"{name}.weight", self.stored)
        inputs = [x, matrix] if bias is None else [x, matrix, bias]
        return graph.node("Gemm", inputs, name, transB=1)

    def rows(self, graph: GraphWriter, ids: str, name: str) -> str:
        return graph.node("Gather", [graph.weight(f"{name}.weight", self.stored), ids], name)


@dataclass(frozen=True, slots=True)
class Blockwise8:
    """Symmetric 8-bit weights with one float32 scale per block of 32 inputs."""

    def store(self, weights: WeightFile, matrix: npt.NDArray[np.float32]) -> StoredMatrix:
        """Quantise and write `matrix`."""
        levels, scales = quantize_blockwise(matrix)
        return _BlockwiseMatrix(
            weights.store(levels), weights.store(scales), num_inputs=matrix.shape[1]
        )


@dataclass(frozen=True, slots=True)
class _BlockwiseMatrix:
    levels: StoredTensor
    scales: StoredTensor
    num_inputs: int

    def multiply(self, graph: GraphWriter, x: str, name: str, bias: str | None = None) -> str:
        inputs = [
            x,
            graph.weight(f"{name}.levels", self.levels),
            graph.weight(f"{name}.scales", self.scales, [self.scales.num_bytes // 4]),
        ]
        if bias is not None:
            inputs += ["", "", bias]
        return graph.node(
            "MatMulNBits",
            inputs,
            name,
            MICROSOFT,
            K=self.num_inputs,
            N=self.levels.shape[0],
            bits=8,
            block_size=_BLOCK_SIZE,
            accuracy_level=_ACCURACY_LEVEL,
        )

    def rows(self, graph: GraphWriter, ids: str, name: str) -> str:
        num_rows, num_blocks, _ = self.levels.shape
        blocks = graph.node(
            "GatherBlockQuantized",
            [
                graph.weight(f"{name}.levels", self.levels),
                ids,
                graph.weight(f"{name}.scales", self.scales, [num_rows, num_blocks, 1]),
            ],
            f"{name}.blocks",
            MICROSOFT,
            gather_axis=0,
            quantize_axis=2,
            bits=8,
            block_size=_BLOCK_SIZE,
        )
        shape = graph.constant(f"{name}.shape", [-1, num_blocks * _BLOCK_SIZE], np.int64)
        padded = graph.node("Reshape", [blocks, shape], name if self._is_whole else f"{name}.pad")
        if self._is_whole:
            return padded
        bounds = [
            graph.constant(f"{name}.{what}", [value], np.int64)
            for what, value in (("begin", 0), ("end", self.num_inputs), ("axis", 1))
        ]
        return graph.node("Slice", [padded, *bounds], name)

    @property
    def _is_whole(self) -> bool:
        return self.num_inputs % _BLOCK_SIZE == 0


def quantize_blockwise(
    matrix: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Quantise rows in blocks of 32, the last one padded with zeros.

    Returns:
        levels uint8 `[rows, blocks, 32]` around 128, and scales float32 `[rows, blocks]`; a value
        is `(level - 128) * scale`. The largest value of a block is met exactly.
    """
    num_rows, num_inputs = matrix.shape
    num_blocks = -(-num_inputs // _BLOCK_SIZE)
    levels = np.empty((num_rows, num_blocks, _BLOCK_SIZE), np.uint8)
    scales = np.empty((num_rows, num_blocks), np.float32)
    for begin in range(0, num_rows, _SLAB_ROWS):
        slab = slice(begin, begin + _SLAB_ROWS)
        levels[slab], scales[slab] = _quantize_slab(matrix[slab], num_blocks)
    return levels, scales


def _quantize_slab(
    rows: npt.NDArray[np.float32], num_blocks: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    padded = np.pad(rows, ((0, 0), (0, num_blocks * _BLOCK_SIZE - rows.shape[1])))
    blocks = padded.reshape(len(rows), num_blocks, _BLOCK_SIZE)
    scales = np.maximum(blocks.max(axis=-1), -blocks.min(axis=-1)) / np.float32(_MAX_LEVEL)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    levels = np.rint(blocks * inverse[..., np.newaxis]) + np.float32(_ZERO_POINT)
    return levels, scales
