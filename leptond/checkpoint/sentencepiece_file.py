"""Reads SentencePiece's model file: pieces with scores and kinds, and how text is normalised.

The file is one protocol buffer, `ModelProto` of sentencepiece_model.proto, of which a few fields
are wanted; its wire format is read here, since neither protobuf nor sentencepiece is needed for
anything else of an import. Format: the protocol buffer encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from leptond.checkpoint.vocabulary import TokenKind
from leptond.errors import InvalidRequest, UnsupportedCapability

__all__ = ["Piece", "SentencePieceFile"]

_UNIGRAM = 1
# Field numbers of sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_KIND = 1, 2, 3
_MODEL_TYPE, _TREATS_SUFFIX = 3, 24
_CHARSMAP, _ADDS_PREFIX, _STRIPS_SPACES, _ESCAPES_SPACES = 2, 3, 4, 5


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the vocabulary; the kinds are numbered as GGUF numbers them."""

    text: str
    score: float
    kind: TokenKind


@dataclass(frozen=True, slots=True)
class SentencePieceFile:
    """A unigram model.

    Attributes:
        pieces: by id.
        charsmap: the compiled normalisation, as `tokenizers` takes it; b"" for none.
        adds_space_prefix: a text begins with a space.
        strips_spaces: spaces at the ends go, and runs of them become one.
    """

    path: Path
    pieces: tuple[Piece, ...]
    charsmap: bytes
    adds_space_prefix: bool
    strips_spaces: bool

    @classmethod
    def read(cls, path: Path) -> SentencePieceFile:
        """Read the file at `path`.

        Raises:
            InvalidRequest: it cannot be read, or is no such file.
            UnsupportedCapability: a model that is not unigram, or writes spaces another way.
        """
        try:
            return _read(path, path.read_bytes())
        except OSError as error:
            raise InvalidRequest(f"{path}: {error.strerror or error}") from error
        except (IndexError, ValueError, TypeError, struct.error) as error:
            raise InvalidRequest(f"{path}: not a SentencePiece model: {error}") from error


def _read(path: Path, data: bytes) -> SentencePieceFile:
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in _fields(data):
        if number == _PIECES:
            pieces.append(_piece(_message(value)))
        elif number == _TRAINER:
            trainer = _message(value)
        elif number == _NORMALIZER:
            normalizer = _message(value)
    if not pieces:
        raise ValueError("it has no pieces")
    if trainer.get(_MODEL_TYPE, _UNIGRAM) != _UNIGRAM:
        raise UnsupportedCapability(f"{path}: model_type {trainer[_MODEL_TYPE]!r}: unigram is read")
    if trainer.get(_TREATS_SUFFIX, 0) or not normalizer.get(_ESCAPES_SPACES, 1):
        raise UnsupportedCapability(f"{path}: spaces must stand before words, as U+2581")
    charsmap = normalizer.get(_CHARSMAP, b"")
    if not isinstance(charsmap, bytes):
        raise TypeError("precompiled_charsmap is no string of bytes")
    return SentencePieceFile(
        path=path,
        pieces=tuple(pieces),
        charsmap=charsmap,
        adds_space_prefix=bool(normalizer.get(_ADDS_PREFIX, 1)),
        strips_spaces=bool(normalizer.get(_STRIPS_SPACES, 1)),
    )


def _piece(fields: dict[int, int | bytes]) -> Piece:
    text, score = fields.get(_PIECE_TEXT), fields.get(_PIECE_SCORE, b"\0\0\0\0")
    kind = fields.get(_PIECE_KIND, TokenKind.NORMAL.value)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or isinstance(kind, bytes):
        raise TypeError("a field of a piece has another type")
    return Piece(
        text=text.decode(),
        score=struct.unpack("<f", score)[0],
        kind=TokenKind(kind),
    )


def _message(value: int | bytes) -> dict[int, int | bytes]:
    """Return the last value of each field, which is the one that counts."""
    if not isinstance(value, bytes):
        raise TypeError("a message is no string of bytes")
    return dict(_fields(value))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield each field's number and value; numbers of fixed size come as their bytes."""
    offset = 0
    while offset < len(data):
        tag, offset = _varint(data, offset)
        match tag & 7:
            case 0:
                value: int | bytes
                value, offset = _varint(data, offset)
            case 1:
                value, offset = _take(data, offset, 8)
            case 2:
                size, offset = _varint(data, offset)
                value, offset = _take(data, offset, size)
            case 5:
                value, offset = _take(data, offset, 4)
            case kind:
                raise ValueError(f"wire type {kind}")
        yield tag >> 3, value


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more bytes follow
            return value, offset
    raise ValueError("a number of more than 64 bits")


def _take(data: bytes, offset: int, size: int) -> tuple[bytes, int]:
    if offset + size > len(data):
        raise ValueError("truncated")
    return data[offset : offset + size], offset + size
