"""The GGUF container: metadata and tensors of one memory-mapped file, checked while read.

The header is parsed here and not by `gguf.GGUFReader`, which meets a truncated or hostile file
with numpy's own errors or a very long loop; every fault found here names the file and the key.
Dequantisation is the `gguf` package's. Format: the GGUF specification, versions 2 and 3,
little-endian. Safe from any thread once opened; nothing is written.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.errors import BackendUnavailable, InvalidRequest, UnsupportedCapability

__all__ = ["GgufFile", "GgufTensor", "MetadataValue"]

MetadataValue = bool | int | float | str | list[Any]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4",
    7: "<u1", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where one tensor lies.

    Attributes:
        shape: row-major, so `(out, in)` of a matrix: GGUF itself counts dimensions from the end.
        type_id: the file's number of the element type.
        type_name: its name ("Q4_K").
        begin: byte offset in the file.
        end: byte offset of the first byte after it.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    type_name: str
    begin: int
    end: int


class _Cursor:
    """Reads forward through the mapped file; running over its end is a truncated file."""

    def __init__(self, path: Path, data: npt.NDArray[np.uint8]) -> None:
        self._path = path
        self._bytes = data
        self.offset = 0
        self.what = "the header"

    def take(self, num_bytes: int) -> bytes:
        end = self.offset + num_bytes
        if end > len(self._bytes):
            raise InvalidRequest(
                f"{self._path}: truncated: {self.what} runs to byte {end}, "
                f"the file has {len(self._bytes)}"
            )
        taken = self._bytes[self.offset : end].tobytes()
        self.offset = end
        return taken

    def uint32(self) -> int:
        return int(struct.unpack("<I", self.take(4))[0])

    def uint64(self) -> int:
        return int(struct.unpack("<Q", self.take(8))[0])

    def string(self) -> str:
        raw = self.take(self.uint64())
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{self._path}: {self.what}: a string is not UTF-8") from error

    def value(self, type_id: int) -> MetadataValue:
        if type_id == _STRING:
            return self.string()
        if type_id == _ARRAY:
            return self._array(self.uint32(), self.uint64())
        number: MetadataValue = self._numbers(type_id, 1)[0]
        return number

    def _array(self, type_id: int, length: int) -> list[Any]:
        if type_id == _ARRAY:
            raise UnsupportedCapability(f"{self._path}: {self.what}: arrays of arrays")
        if type_id == _STRING:
            return [self.string() for _ in range(length)]
        return self._numbers(type_id, length)

    def _numbers(self, type_id: int, count: int) -> list[Any]:
        if type_id not in _SCALARS:
            raise InvalidRequest(f"{self._path}: {self.what}: unknown value type {type_id}")
        dtype = np.dtype(_SCALARS[type_id])
        numbers = np.frombuffer(self.take(count * dtype.itemsize), dtype)
        values: list[Any] = (numbers != 0 if type_id == _BOOL else numbers).tolist()
        return values


class GgufFile:
    """One GGUF file: `metadata` by key, `tensors` by name, and their values on demand.

    Raises:
        InvalidRequest: not a GGUF file, truncated, or inconsistent.
        UnsupportedCapability: a version, byte order or element type that is not read here.
        BackendUnavailable: the `gguf` package is not installed.
    """

    metadata: Mapping[str, MetadataValue]
    tensors: Mapping[str, GgufTensor]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._gguf = _require_gguf()
        self._data = _map(path)
        cursor = _Cursor(path, self._data)
        _check_magic(cursor, path)
        num_tensors, num_keys = cursor.uint64(), cursor.uint64()
        self.metadata = self._read_metadata(cursor, num_keys)
        self.tensors = self._read_tensors(cursor, num_tensors)
        self._check_types()

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Return tensor `name` as float32 in its row-major shape; a copy unless it is F32."""
        tensor = self.tensors[name]
        raw = self._data[tensor.begin : tensor.end]
        rows = raw.reshape(*tensor.shape[:-1], -1)
        values = self._gguf.dequantize(rows, self._gguf.GGMLQuantizationType(tensor.type_id))
        return np.asarray(values, np.float32).reshape(tensor.shape)

    def _read_metadata(self, cursor: _Cursor, num_keys: int) -> dict[str, MetadataValue]:
        metadata: dict[str, MetadataValue] = {}
        for index in range(num_keys):
            cursor.what = f"metadata key {index} of {num_keys}"
            key = cursor.string()
            cursor.what = f"metadata key '{key}'"
            if key in metadata:
                raise InvalidRequest(f"{self.path}: {cursor.what} occurs twice")
            metadata[key] = cursor.value(cursor.uint32())
        return metadata

    def _read_tensors(self, cursor: _Cursor, num_tensors: int) -> dict[str, GgufTensor]:
        headers = [self._tensor_header(cursor, index) for index in range(num_tensors)]
        alignment = self.metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise InvalidRequest(
                f"{self.path}: general.alignment: {alignment} is not a power of two"
            )
        base = -(-cursor.offset // alignment) * alignment
        tensors: dict[str, GgufTensor] = {}
        for name, shape, type_id, offset in headers:
            if name in tensors:
                raise InvalidRequest(f"{self.path}: tensor '{name}' occurs twice")
            tensors[name] = self._place(name, shape, type_id, base + offset)
        return tensors

    def _tensor_header(self, cursor: _Cursor, index: int) -> tuple[str, tuple[int, ...], int, int]:
        cursor.what = f"the entry of tensor {index}"
        name = cursor.string()
        cursor.what = f"the entry of tensor '{name}'"
        num_dimensions = cursor.uint32()
        if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
            raise InvalidRequest(
                f"{self.path}: tensor '{name}' has {num_dimensions} dimensions, "
                f"1 to {_MAX_DIMENSIONS} exist"
            )
        shape = tuple(reversed([cursor.uint64() for _ in range(num_dimensions)]))
        return name, shape, cursor.uint32(), cursor.uint64()

    def _place(self, name: str, shape: tuple[int, ...], type_id: int, begin: int) -> GgufTensor:
        try:
            quantization = self._gguf.GGMLQuantizationType(type_id)
        except ValueError as error:
            raise UnsupportedCapability(
                f"{self.path}: tensor '{name}' has the unknown element type {type_id}"
            ) from error
        block_size, block_bytes = self._gguf.GGML_QUANT_SIZES[quantization]
        if shape[-1] % block_size:
            raise InvalidRequest(
                f"{self.path}: tensor '{name}': rows of {shape[-1]} elements are not whole "
                f"{quantization.name} blocks of {block_size}"
            )
        num_elements = 1
        for extent in shape:
            num_elements *= extent
        end = begin + num_elements // block_size * block_bytes
        if end > len(self._data):
            raise InvalidRequest(
                f"{self.path}: truncated: tensor '{name}' runs to byte {end}, "
                f"the file has {len(self._data)}"
            )
        return GgufTensor(name, shape, type_id, quantization.name, begin, end)

    def _check_types(self) -> None:
        """Refuse element types that cannot be turned into floats, by dequantising one block."""
        for tensor in {tensor.type_id: tensor for tensor in self.tensors.values()}.values():
            quantization = self._gguf.GGMLQuantizationType(tensor.type_id)
            _, block_bytes = self._gguf.GGML_QUANT_SIZES[quantization]
            try:
                self._gguf.dequantize(np.zeros((1, block_bytes), np.uint8), quantization)
            except NotImplementedError as error:
                raise UnsupportedCapability(
                    f"{self.path}: tensor '{tensor.name}' has the element type "
                    f"{tensor.type_name}, which cannot be turned into floats"
                ) from error


def _require_gguf() -> ModuleType:
    try:
        import gguf  # noqa: PLC0415 - part of the `import` extra, absent from a serving daemon
    except ImportError as error:
        raise BackendUnavailable(
            "reading a GGUF file needs the 'gguf' package: pip install 'leptond[import]'"
        ) from error
    return gguf


def _map(path: Path) -> npt.NDArray[np.uint8]:
    try:
        size = path.stat().st_size
        if size == 0:
            raise InvalidRequest(f"{path}: the file is empty")
        return np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror or error}") from error


def _check_magic(cursor: _Cursor, path: Path) -> None:
    magic = cursor.take(len(_MAGIC))
    if magic != _MAGIC:
        raise InvalidRequest(f"{path}: not a GGUF file: it begins with {magic!r}")
    version = cursor.uint32()
    if version not in _VERSIONS:
        raise UnsupportedCapability(
            f"{path}: GGUF version {version:#x}: versions 2 and 3, little-endian, are read"
        )
