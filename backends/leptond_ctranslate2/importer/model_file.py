"""The engine's `model.bin`, read without the engine: names, shapes, types, and the bytes of int8.

Format version 6, little-endian, after `ctranslate2.specs.model_spec`:

    u32 version, text name, u32 revision
    u32 count, then each variable: text name, u8 rank, u32 dimensions, u8 type, u32 bytes, data
    u32 count, then each alias: text alias, text name

A text is its length with a zero byte (u16), its characters and that zero byte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.errors import InvalidRequest, UnsupportedCapability

__all__ = ["ModelFile", "Variable"]

_VERSION = 6
_TYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
_READABLE = {"float32": "<f4", "int8": "i1", "int16": "<i2", "int32": "<i4"}


@dataclass(frozen=True, slots=True)
class Variable:
    """Where one variable lies; `begin` and `end` are byte offsets."""

    shape: tuple[int, ...]
    type_name: str
    begin: int
    end: int


class ModelFile:
    """One file: `spec_name` says what the engine takes it for, `variables` what it holds.

    Args:
        is_writable: `values` may then be changed, in the file.

    Raises:
        InvalidRequest: it is not such a file, or is truncated.
        UnsupportedCapability: it is of another version.
    """

    def __init__(self, path: Path, *, is_writable: bool = False) -> None:
        self._path = path
        try:
            self._bytes = np.memmap(path, np.uint8, "r+" if is_writable else "r")
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"{path} cannot be read: {error}") from error
        self._offset = 0
        version = self._number("<I")
        if version != _VERSION:
            raise UnsupportedCapability(
                f"{path}: version {version} of the engine's format; {_VERSION} is read: convert "
                "the model again"
            )
        self.spec_name = self._text()
        self._number("<I")  # revision: the engine's to judge
        self.variables = dict(self._variable() for _ in range(self._number("<I")))
        for _ in range(self._number("<I")):
            alias, name = self._text(), self._text()
            if name not in self.variables:
                raise InvalidRequest(f"{path}: {alias} stands for {name}, which is not there")
            self.variables[alias] = self.variables[name]

    def values(self, name: str) -> npt.NDArray[Any]:
        """Return a view of a variable that numpy has a type for."""
        variable = self.variables[name]
        data = self._bytes[variable.begin : variable.end]
        return data.view(_READABLE[variable.type_name]).reshape(variable.shape)

    def flush(self) -> None:
        """Write what was changed."""
        self._bytes.flush()

    def _variable(self) -> tuple[str, Variable]:
        name = self._text()
        shape = tuple(self._number("<I") for _ in range(self._number("<B")))
        type_id = self._number("<B")
        num_bytes = self._number("<I")
        if type_id >= len(_TYPES):
            raise UnsupportedCapability(f"{self._path}: {name} has the unknown type {type_id}")
        begin = self._offset
        self._take(num_bytes)
        return name, Variable(shape, _TYPES[type_id], begin, self._offset)

    def _text(self) -> str:
        raw = self._take(self._number("<H"))
        try:
            return raw.tobytes()[:-1].decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{self._path} is not a model of this engine") from error

    def _number(self, kind: str) -> int:
        (number,) = struct.unpack(kind, self._take(struct.calcsize(kind)).tobytes())
        return int(number)

    def _take(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        begin, self._offset = self._offset, self._offset + num_bytes
        if self._offset > len(self._bytes):
            raise InvalidRequest(
                f"{self._path} is truncated, or is not a model of this engine: it has "
                f"{len(self._bytes)} bytes and speaks of {self._offset}"
            )
        return self._bytes[begin : self._offset]
