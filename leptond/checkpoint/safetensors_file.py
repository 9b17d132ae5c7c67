"""The safetensors container: tensors of one memory-mapped file, checked when it is opened.

The format is eight bytes of header length, a JSON header, and raw little-endian values; it is
read here and not by the `safetensors` package, so that every fault names the file and the tensor
and bfloat16 needs no further package. Format: the safetensors specification. Safe from any thread
once opened; nothing is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.errors import InvalidRequest, UnsupportedCapability

__all__ = ["SafetensorsFile", "StoredTensor"]

# The specification's own limit.
_MAX_HEADER_BYTES = 100_000_000
_BFLOAT16 = "BF16"
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    _BFLOAT16: np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_FLOATS = frozenset({"F64", "F32", "F16", _BFLOAT16})


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies: bytes `begin` to `end` after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """One file: `tensors` by name, and their values on demand.

    Raises:
        InvalidRequest: not a safetensors file, truncated, or inconsistent.
        UnsupportedCapability: an element type that is not read here.
    """

    tensors: Mapping[str, StoredTensor]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _map(path)
        header_bytes = self._header_bytes()
        self._data = self._file[8 + header_bytes :]
        self.tensors = {
            name: self._entry(name, fields)
            for name, fields in self._header(header_bytes).items()
            if name != "__metadata__"
        }

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Return tensor `name` as float32; a view of the file if it is stored so, and aligned.

        Raises:
            UnsupportedCapability: its elements are no floats.
        """
        tensor = self.tensors[name]
        if tensor.dtype not in _FLOATS:
            raise UnsupportedCapability(
                f"{self.path}: tensor '{name}' holds {tensor.dtype}: floats are read"
            )
        values = self._data[tensor.begin : tensor.end].view(_DTYPES[tensor.dtype])
        if tensor.dtype == _BFLOAT16:
            # bfloat16 is the upper half of a float32.
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return np.require(values, np.float32, "A").reshape(tensor.shape)

    def _header_bytes(self) -> int:
        if len(self._file) < 8:  # noqa: PLR2004 - a uint64
            raise InvalidRequest(f"{self.path}: not a safetensors file: it has no header")
        size = int.from_bytes(self._file[:8].tobytes(), "little")
        if size > min(_MAX_HEADER_BYTES, len(self._file) - 8):
            raise InvalidRequest(
                f"{self.path}: not a safetensors file, or truncated: a header of {size} bytes"
            )
        return size

    def _header(self, header_bytes: int) -> dict[str, Any]:
        try:
            header = json.loads(self._file[8 : 8 + header_bytes].tobytes())
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{self.path}: the header is not JSON: {error}") from error
        if not isinstance(header, dict):
            raise InvalidRequest(f"{self.path}: the header is no object")
        return header

    def _entry(self, name: str, fields: Any) -> StoredTensor:
        try:
            dtype, shape = fields["dtype"], tuple(fields["shape"])
            begin, end = fields["data_offsets"]
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(f"{self.path}: tensor '{name}': a field is missing") from error
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise UnsupportedCapability(
                f"{self.path}: tensor '{name}' has the element type {dtype}, which is not read"
            )
        if not all(type(value) is int and value >= 0 for value in (*shape, begin, end)):
            raise InvalidRequest(f"{self.path}: tensor '{name}': sizes must be whole numbers")
        if end - begin != math.prod(shape) * _DTYPES[dtype].itemsize:
            raise InvalidRequest(
                f"{self.path}: tensor '{name}': {end - begin} bytes for {dtype} of shape {shape}"
            )
        if end > len(self._data):
            raise InvalidRequest(
                f"{self.path}: truncated: tensor '{name}' runs to byte {end} of the data, "
                f"there are {len(self._data)}"
            )
        return StoredTensor(dtype, shape, begin, end)


def _map(path: Path) -> npt.NDArray[np.uint8]:
    try:
        if path.stat().st_size == 0:
            raise InvalidRequest(f"{path}: the file is empty")
        return np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror or error}") from error
