"""Vectors that stand for texts."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from leptond_client.errors import LeptonError
from leptond_client.values.call import CallInfo

if TYPE_CHECKING:
    from leptond_client.arrays import Array

__all__ = ["ElementType", "EmbeddedBatch", "EmbeddingSummary", "Embeddings"]


class ElementType(StrEnum):
    """The type of the numbers of vectors.

    FLOAT32, FLOAT16: little-endian. INT8: to be multiplied by the vector's scale. BINARY: one bit
    per number, 1 where it is above 0, the first in the highest bit.
    """

    UNSPECIFIED = "unspecified"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    BINARY = "binary"


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of several texts, in their order: `len`, indices and iteration give vectors.

    Attributes:
        data: the vectors as they travelled, one after another, without gaps.
        element_type: the type of their numbers.
        dimensions: numbers per vector.
        num_vectors: how many vectors there are.
        scales: with INT8, by what each vector's numbers are multiplied.
        num_tokens: how many tokens of each text were read.
        truncated_tokens: how many tokens of each text were cut off; empty where none were.
        pooling: how token vectors became one: "mean", "cls", "last_token" or "max".
        normalized: whether the vectors were scaled to length 1.
        info: what is known of the call; of a batch in a stream, the stream's result says it.
    """

    data: bytes = field(repr=False)
    element_type: ElementType
    dimensions: int
    num_vectors: int
    scales: tuple[float, ...] = ()
    num_tokens: tuple[int, ...] = ()
    truncated_tokens: tuple[int, ...] = ()
    pooling: str = ""
    normalized: bool = False
    info: CallInfo = field(default_factory=CallInfo)

    def __len__(self) -> int:
        return self.num_vectors

    def __getitem__(self, index: int) -> array[float]:
        """One vector, as floats: INT8 is multiplied by its scale, BINARY is 0 and 1."""
        if not -self.num_vectors <= index < self.num_vectors:
            raise IndexError(f"there is no vector {index} among {self.num_vectors}")
        return self._decoded(index % self.num_vectors)

    def __iter__(self) -> Iterator[array[float]]:
        return map(self._decoded, range(self.num_vectors))

    def numpy(self, *, as_stored: bool = False) -> Array:
        """All vectors as one array of numpy's, which must be installed.

        Args:
            as_stored: the numbers as they travelled: float32, float16, int8 without its scales, or
                the packed bytes of binary vectors, read-only. Otherwise float32, int8 multiplied
                by its scales, and for binary vectors uint8 0 and 1.

        Returns:
            [vectors, dimensions]; packed [vectors, bytes].

        Raises:
            ModuleNotFoundError: numpy is not installed; `leptond[numpy]` brings it.
        """
        from leptond_client import arrays  # noqa: PLC0415  # numpy need not be installed

        found = arrays.stored(self.data, self.element_type, self.num_vectors)
        if as_stored:
            return found
        return arrays.decoded(found, self.element_type, self.dimensions, self.scales)

    def _decoded(self, index: int) -> array[float]:
        size = len(self.data) // self.num_vectors
        packed = self.data[index * size : (index + 1) * size]
        match self.element_type:
            case ElementType.FLOAT16:
                return array("f", struct.unpack(f"<{self.dimensions}e", packed))
            case ElementType.INT8:
                scale = self.scales[index]
                return array("f", (number * scale for number in array("b", packed)))
            case ElementType.BINARY:
                bits = (packed[i >> 3] >> (7 - (i & 7)) & 1 for i in range(self.dimensions))
                return array("f", bits)
        found = array("f", packed)
        if sys.byteorder == "big":
            found.byteswap()
        return found


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """The results of consecutive texts of a stream.

    Attributes:
        first_index: the index of the first of them among all texts of the stream, from 0.
        embeddings: one vector per text; that of a text that failed is all zeros.
        errors: why texts failed, by their index among all texts of the stream.
    """

    first_index: int
    embeddings: Embeddings
    errors: Mapping[int, LeptonError]


@dataclass(frozen=True, slots=True)
class EmbeddingSummary:
    """What a stream of embeddings was as a whole.

    Attributes:
        num_texts: how many texts it answered, those that failed included.
        num_errors: how many of them failed.
        info: what is known of the call.
    """

    num_texts: int
    num_errors: int
    info: CallInfo
