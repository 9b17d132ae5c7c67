"""The exact bytes of every token, by the way in which the vocabulary writes bytes.

    byte-level      each letter of a token is one byte, in GPT-2's alphabet
    sentencepiece   U+2581 is a space, `<0x0A>` a byte, the rest is text
    word-piece      `##` continues a word, all else begins one after a space

Built by `leptond.text.tokenizer`; read on any thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from leptond.errors import InvalidRequest, ModelFailed

__all__ = ["TokenVocabulary"]

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_DEFAULT_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_ByteWriting = Callable[[str], bytes]


def _byte_alphabet() -> dict[int, int]:
    """Return GPT-2's alphabet, letter to byte, as `bytes_to_unicode` of its `encoder.py` has it.

    Printable bytes of Latin-1 stand for themselves, the others for U+0100 and after, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {byte: byte for byte in printable} | {
        0x100 + index: byte for index, byte in enumerate(others)
    }


_ALPHABET = _byte_alphabet()


class TokenVocabulary:
    """Tokens by id, and what they are as bytes.

    Args:
        tokens: by id; None where the numbering has a hole.
        added: ids of tokens that are text as it is, in no special writing.
        decoder: the `decoder` of the tokenizer.json.

    Raises:
        ModelFailed: a decoder that is not known.
    """

    def __init__(
        self, tokens: Sequence[str | None], added: frozenset[int], decoder: Mapping[str, Any] | None
    ) -> None:
        self._tokens = tokens
        self._added = added
        self._write, self.strips_leading_space = _read_decoder(decoder)
        self._written: dict[int, bytes] = {}

    @property
    def size(self) -> int:
        """Number of ids, holes included."""
        return len(self._tokens)

    def check_id(self, token_id: int) -> None:
        """Refuse an id that is not in the vocabulary.

        Raises:
            InvalidRequest: names the id and the size.
        """
        if not 0 <= token_id < len(self._tokens):
            message = f"token {token_id} is not in the vocabulary of {len(self._tokens)}"
            raise InvalidRequest(message, field="token_ids")

    def bytes_of(self, token_id: int) -> bytes:
        """Return the bytes of a token; none for a hole and for an id beyond the end.

        A model's own vocabulary may be padded beyond its tokenizer's.
        """
        data = self._written.get(token_id)
        if data is not None:  # asked twice for every token of every stream
            return data
        token = self._tokens[token_id] if 0 <= token_id < len(self._tokens) else None
        if token is None:
            return b""
        data = token.encode() if token_id in self._added else self._write(token)
        self._written[token_id] = data
        return data

    def longest_bytes(self) -> int:
        """Return an upper bound of the bytes of a token."""
        # A letter is at least a byte, a space written as U+2581 is three.
        return max((len(token.encode()) for token in self._tokens if token), default=0)


def _read_decoder(decoder: Mapping[str, Any] | None) -> tuple[_ByteWriting, bool]:
    """Return how tokens are written, and whether a text loses its first space."""
    steps = _steps(decoder)
    by_type = {str(step["type"]): step for step in steps}
    match sorted(by_type.keys() - {"Fuse"}):
        case ["ByteLevel"]:
            return _byte_level, False
        case ["Metaspace"] | ["ByteFallback", "Metaspace"]:
            step = by_type["Metaspace"]
            strips = step.get("prepend_scheme", "always") != "never"
            space = step.get("replacement", _DEFAULT_SPACE)
            return _sentencepiece(space, has_bytes="ByteFallback" in by_type), strips
        case ["WordPiece"]:
            return _word_piece(by_type["WordPiece"].get("prefix", "##")), True
        case ["ByteFallback", "Replace"] | ["ByteFallback", "Replace", "Strip"]:
            space = _replaced_by_space(by_type["Replace"])
            strips = "Strip" in by_type and _strips_one_space(by_type["Strip"])
            return _sentencepiece(space, has_bytes=True), strips
        case types:
            raise ModelFailed(f"tokenizer.json: decoder: {' + '.join(types)} is not supported")


def _steps(decoder: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if decoder is None:
        return [{"type": "none"}]
    if decoder["type"] == "Sequence":
        return [step for inner in decoder["decoders"] for step in _steps(inner)]
    return [decoder]


def _replaced_by_space(step: Mapping[str, Any]) -> str:
    pattern = step["pattern"].get("String")
    if not pattern or step["content"] != " ":
        raise ModelFailed("tokenizer.json: decoder: Replace must turn a string into a space")
    return str(pattern)


def _strips_one_space(step: Mapping[str, Any]) -> bool:
    if (step["content"], step["stop"]) != (" ", 0) or step["start"] > 1:
        raise ModelFailed("tokenizer.json: decoder: Strip must take one space from the start")
    return bool(step["start"])


def _byte_level(token: str) -> bytes:
    try:
        return bytes([_ALPHABET[ord(letter)] for letter in token])
    except KeyError:  # not in the alphabet, so it is text
        return token.encode()


def _sentencepiece(space: str, *, has_bytes: bool) -> _ByteWriting:
    def write(token: str) -> bytes:
        if has_bytes and (byte := _BYTE.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        return token.replace(space, " ").encode()

    return write


def _word_piece(prefix: str) -> _ByteWriting:
    def write(token: str) -> bytes:
        if token.startswith(prefix):
            return token.removeprefix(prefix).encode()
        return b" " + token.encode()

    return write
