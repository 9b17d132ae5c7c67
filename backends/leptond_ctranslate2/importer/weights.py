"""Tensors of a checkpoint as the engine's file holds them, read and converted while it is written.

The engine's own converter keeps a whole model in memory, needs torch for bfloat16, and quantises
to the full range of a byte. Here a variable knows its shape and type and makes its bytes when the
file is written, so that one tensor is in memory at a time; and the range of a byte is the
processor's (`leptond_ctranslate2.processor`, I1).

int8: `w ≈ q / scale`, `scale = limit / max|w|` for each row, q rounded to nearest even; a row of
zeros has scale 1. That is the engine's format (`ctranslate2.specs.model_spec`), where limit is
always 127.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.checkpoint import Checkpoint, expected_shapes
from leptond_ctranslate2.precision import Precision

__all__ = ["Matrix", "StoredVariable", "WeightReader", "quantise_rows", "to_bfloat16"]

FloatArray = npt.NDArray[np.float32]
Read = Callable[[], FloatArray]

_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


class StoredVariable(ABC):
    """A variable of a specification whose bytes are made when they are asked for.

    It has what `ctranslate2.specs.model_spec` asks of the engine's own variables to alias and to
    write them. Conversion is not asked of it: that is done.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, report: Callable[[int], None]) -> None:
        self.shape = shape
        self.dtype = dtype
        self._report = report

    def is_scalar(self) -> bool:
        """Whether it has no dimension: never."""
        return False

    def equal(self, other: object) -> bool:
        """Whether the two are one in the file. What is shared is one object."""
        return self is other

    def num_bytes(self) -> int:
        """Size in the file."""
        return int(np.prod(self.shape)) * _ITEM_BYTES[self.dtype]

    def to_bytes(self) -> bytes:
        """Read, convert, and tell how many bytes that made."""
        data = self.values().tobytes()
        self._report(len(data))
        return data

    @abstractmethod
    def values(self) -> npt.NDArray[Any]:
        """The converted tensor; bfloat16 as its bits."""


class _Floats(StoredVariable):
    """A tensor in a floating-point type."""

    def __init__(
        self, shape: tuple[int, ...], dtype: str, report: Callable[[int], None], read: Read
    ) -> None:
        super().__init__(shape, dtype, report)
        self._read = read

    def values(self) -> npt.NDArray[Any]:
        """The tensor in the type of the file."""
        values = self._read()
        return to_bfloat16(values) if self.dtype == "bfloat16" else values.astype(self.dtype)


class _Bytes(StoredVariable):
    """A matrix in int8, which keeps the scales that it found."""

    def __init__(
        self, shape: tuple[int, ...], report: Callable[[int], None], read: Read, limit: int
    ) -> None:
        super().__init__(shape, "int8", report)
        self._read = read
        self._limit = limit
        self._scales: FloatArray | None = None

    def values(self) -> npt.NDArray[np.int8]:
        """The rounded rows."""
        quantised, self._scales = quantise_rows(self._read(), self._limit)
        return quantised

    def scales(self) -> FloatArray:
        """One factor per row. The file has them right behind the matrix, so nothing is redone."""
        scales, self._scales = self._scales, None
        return quantise_rows(self._read(), self._limit)[1] if scales is None else scales


@dataclass(frozen=True, slots=True)
class Matrix:
    """What a layer's specification holds of one matrix; the scale is None in floating point."""

    weight: StoredVariable
    scale: StoredVariable | None


class WeightReader:
    """Gives the variables of one checkpoint in one precision.

    Args:
        int8_limit: largest magnitude of a quantised weight.
        report: told of every piece of the file, in bytes.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: Precision,
        int8_limit: int,
        report: Callable[[int], None],
    ) -> None:
        self._checkpoint = checkpoint
        self.precision = precision
        self._limit = int8_limit
        self._report = report
        self._shapes = expected_shapes(checkpoint.architecture)

    def has(self, name: str) -> bool:
        """Whether the architecture has a tensor of that name."""
        return name in self._shapes

    def matrix(self, *names: str, num_rows: int | None = None) -> Matrix:
        """A matrix that may be quantised: the named ones below each other, cut to `num_rows`."""
        shape, read = self._joined(names, num_rows)
        if not self.precision.has_int8_weights:
            return Matrix(_Floats(shape, self.precision.float_type, self._report, read), None)
        weight = _Bytes(shape, self._report, read, self._limit)
        return Matrix(weight, _Floats(shape[:1], "float32", self._report, weight.scales))

    def vector(self, *names: str, num_rows: int | None = None) -> StoredVariable:
        """A tensor that is never quantised: biases, gains, positions."""
        shape, read = self._joined(names, num_rows)
        return _Floats(shape, self.precision.float_type, self._report, read)

    def _joined(self, names: tuple[str, ...], num_rows: int | None) -> tuple[tuple[int, ...], Read]:
        shapes = [self._shapes[name] for name in names]
        rows = sum(shape[0] for shape in shapes) if num_rows is None else num_rows

        def read() -> FloatArray:
            parts = [self._checkpoint.tensor(name) for name in names]
            return (parts[0] if len(parts) == 1 else np.concatenate(parts))[:rows]

        return (rows, *shapes[0][1:]), read


def quantise_rows(matrix: FloatArray, limit: int) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """Return int8 rows and their float32 scales, `[out, in]` and `[out]`."""
    peaks = np.abs(matrix).max(axis=1)
    peaks[peaks == 0] = limit
    # A row of the tiniest numbers must not have an infinite scale.
    peaks = np.maximum(peaks, np.float32(limit) / np.finfo(np.float32).max)
    scales = (np.float32(limit) / peaks).astype(np.float32)
    return np.rint(matrix * scales[:, np.newaxis]).astype(np.int8), scales


def to_bfloat16(values: FloatArray) -> npt.NDArray[np.uint16]:
    """Return the upper halves of finite float32 values, rounded to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounding = ((bits >> 16) & 1) + np.uint32(0x7FFF)
    return ((bits + rounding) >> 16).astype(np.uint16)
