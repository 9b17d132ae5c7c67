"""Vectors as numpy arrays: the one module that needs numpy, imported when arrays are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Matrix", "decoded", "stored"]

Array = npt.NDArray[Any]

_DTYPE_OF = {"float32": "<f4", "float16": "<f2", "int8": "i1", "binary": "u1"}
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER_BYTES = 128  # a multiple of 64, as the format wants it, with room for any two counts


def stored(data: bytes, element_type: str, num_vectors: int) -> Array:
    """The vectors as they travelled, without a copy and read-only.

    Returns:
        float32, float16 or int8 of [vectors, dimensions]; for binary vectors uint8 of
        [vectors, bytes], the first number in the highest bit.
    """
    flat = np.frombuffer(data, dtype=_DTYPE_OF[element_type])
    return flat.reshape(num_vectors, -1 if num_vectors else 0)


def decoded(found: Array, element_type: str, dimensions: int, scales: Sequence[float]) -> Array:
    """The numbers that the vectors stand for.

    Args:
        found: from `stored`.
        element_type: of the vectors.
        dimensions: numbers per vector.
        scales: with int8, one per vector.

    Returns:
        float32 of [vectors, dimensions], int8 multiplied by its scale; for binary vectors uint8 of
        the same shape, 0 or 1.
    """
    if element_type == "binary":
        return np.unpackbits(found, axis=1, count=dimensions)
    if element_type == "int8":
        return found * np.asarray(scales, dtype=np.float32)[:, np.newaxis]
    return found.astype(np.float32, copy=False)


class Matrix:
    """A `.npy` file that grows: rows are written as they come, and the count at the end.

    The file is complete once it was closed; before that, its header says no rows.

    Args:
        path: replaced if it exists.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._dtype: np.dtype[Any] = np.dtype("<f4")
        self._width = 0
        self._num_rows = 0

    @property
    def num_rows(self) -> int:
        """How many rows were written."""
        return self._num_rows

    def append(self, found: Array, places: Sequence[int | None]) -> None:
        """Write one row per place: that row of `found`, or zeros for None.

        Args:
            found: [rows, width]; the first call fixes the type and the width.
            places: indices into `found`.

        Raises:
            ValueError: `found` is not like the ones before.
        """
        if not self._width:
            self._dtype, self._width = found.dtype, found.shape[1]
            self._write_header()
        if (found.dtype, found.shape[1]) != (self._dtype, self._width):
            msg = f"{found.dtype} × {found.shape[1]} after {self._dtype} × {self._width}"
            raise ValueError(msg)
        for place in places:
            row = found[place] if place is not None else np.zeros(self._width, self._dtype)
            self._file.write(row.tobytes())
        self._num_rows += len(places)

    def append_zeros(self, num_rows: int) -> None:
        """Write rows of zeros, of no numbers as long as the width is not known."""
        self._file.write(bytes(num_rows * self._width * self._dtype.itemsize))
        self._num_rows += num_rows

    def close(self) -> None:
        """Write the count of rows and close the file."""
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        """Write the header in its fixed place; format version 1.0 of numpy's own description."""
        shape = f"({self._num_rows}, {self._width})"
        text = f"{{'descr': {self._dtype.str!r}, 'fortran_order': False, 'shape': {shape}, }}"
        self._file.seek(0)
        size = _HEADER_BYTES - len(_MAGIC) - 2
        header = text.ljust(size - 1) + "\n"
        self._file.write(_MAGIC + size.to_bytes(2, "little") + header.encode("latin1"))
        self._file.seek(0, 2)
