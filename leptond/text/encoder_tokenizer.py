"""Texts and pairs to what an encoder takes: special tokens included, cut where that is asked for.

Made by a loader thread; immutable; used on any thread. `encode` releases the GIL while it works,
yet many texts take long: call it off the event loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

from tokenizers import Encoding
from tokenizers import Tokenizer as Engine

from leptond.checkpoint.encoder_defaults import (
    EncoderDefaults,
    Seq2SeqDefaults,
    read_encoder_defaults,
)
from leptond.errors import InvalidRequest, ModelFailed, RequestTooLarge

__all__ = ["Encoded", "EncoderTokenizer", "Side", "TokenSpan"]

Side = Literal["left", "right"]
"""The end that a text loses when it is cut."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One input of an encoder, never padded.

    Attributes:
        token_ids: special tokens included.
        token_type_ids: as long: which text of a pair each token is of, as the model was trained.
        num_truncated: tokens of the text, or of both, that were cut.
    """

    token_ids: tuple[int, ...]
    token_type_ids: tuple[int, ...]
    num_truncated: int


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """One token of a text, and where it comes from.

    Attributes:
        text: the part of the text that it stands for; of a special token, its name.
        is_special: it was put in around the text, which it is no part of.
        start, end: bytes of the text's UTF-8, end exclusive; 0 and 0 of a special token.
    """

    token_id: int
    text: str
    is_special: bool
    start: int
    end: int


class EncoderTokenizer:
    """The tokenizer of one encoder or sequence-to-sequence model.

    Args:
        definition: the text of its tokenizer.json. Its post-processor puts in the special tokens;
            truncation and padding in it are not obeyed.
        defaults: what else the model's input needs.

    Attributes:
        defaults: as given.

    Raises:
        ModelFailed: the definition cannot be read.
    """

    def __init__(self, definition: str, defaults: EncoderDefaults | Seq2SeqDefaults) -> None:
        self.defaults = defaults
        try:
            engine = Engine.from_str(definition)
        except Exception as error:  # the library raises no class of its own
            raise ModelFailed(f"tokenizer.json: {error}") from error
        engine.no_truncation()
        engine.no_padding()
        self._definition = definition
        self._engine = engine
        # What a model lacks of its tokenizer's pieces, and what stands for them.
        self._vocab_size: float = math.inf
        self._unknown_id: int | None = None
        self._special_ids = frozenset(
            token_id
            for token_id, token in engine.get_added_tokens_decoder().items()
            if token.special
        )
        if isinstance(defaults, Seq2SeqDefaults) and defaults.unknown_token_id is not None:
            self._vocab_size, self._unknown_id = defaults.vocab_size, defaults.unknown_token_id

    @classmethod
    def load(cls, directory: Path) -> EncoderTokenizer:
        """Read `tokenizer.json` and `encoder.json` of a model directory.

        Raises:
            ModelFailed: a file is missing or cannot be read.
        """
        defaults = read_encoder_defaults(directory)
        path = directory / "tokenizer.json"
        try:
            return cls(path.read_text(encoding="utf-8"), defaults)
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFailed(f"{path}: {error}") from error

    def encode(
        self,
        texts: Sequence[str | tuple[str, str]],
        *,
        max_tokens: int,
        truncate: Side | None,
        prompt: str = "",
        keeps_first: bool = False,
        parse_special: bool = True,
        add_special: bool = True,
    ) -> list[Encoded]:
        """Return what the encoder takes for each text or pair, in their order.

        Args:
            texts: any Unicode text; of a pair, the longer one is cut first, unless
                `keeps_first`.
            max_tokens: most tokens of an input, special tokens included.
            truncate: the end that is cut of what is longer; None refuses it.
            prompt: put in front of each text, and of the first of a pair.
            keeps_first: of a pair only the second text is cut.
            parse_special: special tokens in a text become what they name; else they are text.
            add_special: put in the special tokens that the model was trained with.

        Raises:
            RequestTooLarge: an input is too long and must not be cut; it names which.
            InvalidRequest: lone surrogates, or no room for any text beside the special tokens.
        """
        inputs = [(text, None) if isinstance(text, str) else text for text in texts]
        parts: list[str] = []
        for first, second in inputs:
            parts.append(prompt + first)
            if second is not None:
                parts.append(second)
        engine = self._engine if parse_special else self._literal
        encodings = iter(_encode_plain(engine, parts, inputs))
        encoded = []
        for index, (_, second) in enumerate(inputs):
            first_part = next(encodings)
            second_part = None if second is None else next(encodings)
            field = f"texts[{index}]"
            room = _Room(max_tokens, truncate, keeps_first, adds=add_special, parses=parse_special)
            encoded.append(self._assemble(first_part, second_part, room, field))
        return encoded

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return a text that has these tokens, as near to the one they were made of as can be.

        Args:
            ids: all of the tokenizer's.
            skip_special: special tokens give no text.
        """
        return self._engine.decode(list(ids), skip_special_tokens=skip_special)

    def spans(self, text: str, *, add_special: bool = True) -> list[TokenSpan]:
        """Return the tokens of a text with their places in it; nothing is cut.

        Raises:
            InvalidRequest: lone surrogates.
        """
        try:
            encoded = self._engine.encode_batch([text], add_special_tokens=add_special)[0]
        except TypeError:  # what the library says of text that it cannot turn into UTF-8
            raise InvalidRequest("the text holds a lone surrogate: not text") from None
        places = [0]  # in bytes, of each character
        for char in text:
            places.append(places[-1] + len(char.encode()))
        parts = zip(
            encoded.ids, encoded.tokens, encoded.offsets, encoded.special_tokens_mask, strict=True
        )
        return [
            TokenSpan(token_id, token, is_special=True, start=0, end=0)
            if is_special
            else TokenSpan(token_id, text[a:b], is_special=False, start=places[a], end=places[b])
            for token_id, token, (a, b), is_special in parts
        ]

    def token_id(self, token: str) -> int:
        """Return the id of a token that the vocabulary has, by its exact text.

        Raises:
            ModelFailed: it has no such token.
        """
        token_id = self._engine.token_to_id(token)
        if token_id is None:
            raise ModelFailed(f"tokenizer.json: the token {token!r} is missing")
        return token_id

    @cached_property
    def _literal(self) -> Engine:
        """A second engine, to which special tokens in a text are text; made when one asks."""
        engine = Engine.from_str(self._definition)
        engine.no_truncation()
        engine.no_padding()
        engine.encode_special_tokens = True
        return engine

    def _assemble(
        self,
        first: Encoding,
        second: Encoding | None,
        wanted: _Room,
        field: str,
    ) -> Encoded:
        """Cut one input to its room and put its special tokens in."""
        max_tokens, truncate = wanted.max_tokens, wanted.truncate
        num_special = (
            self._engine.num_special_tokens_to_add(second is not None) if wanted.adds else 0
        )
        room = max_tokens - num_special
        if room < 1:
            raise InvalidRequest(
                f"max_tokens is {max_tokens}; {num_special} special tokens leave no room for text",
                field="max_tokens",
            )
        num_second = 0 if second is None else len(second)
        num_truncated = max(0, len(first) + num_second - room)
        if num_truncated:
            if truncate is None:
                raise RequestTooLarge(
                    f"{field} has {len(first) + num_second + num_special} tokens; at most "
                    f"{max_tokens} fit",
                    field=field,
                )
            if wanted.keeps_first:
                keep_first, keep_second = len(first), room - len(first)
            else:
                keep_first, keep_second = _share(len(first), num_second, room)
            if keep_second < 1 and wanted.keeps_first:
                raise RequestTooLarge(
                    f"{field}: the first text has {len(first)} tokens and leaves no room for the "
                    f"second; {room} fit together",
                    field=field,
                )
            first.truncate(keep_first, direction=truncate)
            if second is not None:
                second.truncate(keep_second, direction=truncate)
        whole = self._engine.post_process(first, second, add_special_tokens=wanted.adds)
        ids = whole.ids
        if not wanted.parses and not self._special_ids.isdisjoint(ids):
            ids = self._without_forged(ids, whole.special_tokens_mask, field)
        if max(ids, default=0) >= self._vocab_size:
            unknown = cast(int, self._unknown_id)
            ids = [unknown if one >= self._vocab_size else one for one in ids]
        return Encoded(tuple(ids), tuple(whole.type_ids), num_truncated)

    def _without_forged(self, ids: list[int], mask: list[int], field: str) -> list[int]:
        """Return the ids with the unknown token for special ones that the text spelled.

        A vocabulary may hold its special tokens as pieces, and then plain text can become one.
        """
        found = []
        for token_id, is_ours in zip(ids, mask, strict=True):
            is_forged = not is_ours and token_id in self._special_ids
            if is_forged and self._unknown_id is None:
                message = (
                    f"{field} holds {self._engine.id_to_token(token_id)!r}, which this model's "
                    "vocabulary cannot express as plain text"
                )
                raise InvalidRequest(message, field=field)
            found.append(cast(int, self._unknown_id) if is_forged else token_id)
        return found


@dataclass(frozen=True, slots=True)
class _Room:
    """How long an input may be, and what becomes of a longer one."""

    max_tokens: int
    truncate: Side | None
    keeps_first: bool
    adds: bool  # special tokens
    parses: bool  # those in the text


def _encode_plain(
    engine: Engine, parts: list[str], inputs: Sequence[tuple[str, str | None]]
) -> list[Encoding]:
    # `encode` would hold the GIL all the while; the batch calls do not.
    try:
        return engine.encode_batch_fast(parts, add_special_tokens=False)
    except TypeError:
        # What the library says of text that it cannot turn into UTF-8.
        index, char = next(
            (index, char)
            for index, pair in enumerate(inputs)
            for char in "".join(filter(None, pair))
            if "\ud800" <= char <= "\udfff"
        )
        field = f"texts[{index}]"
        message = f"{field} holds U+{ord(char):04X}, a lone surrogate: not text"
        raise InvalidRequest(message, field=field) from None


def _share(num_first: int, num_second: int, room: int) -> tuple[int, int]:
    """How many tokens of each text are kept: the longer loses first, then both alike.

    The "longest first" of the `tokenizers` library and of transformers; of equals the first
    keeps less.
    """
    half = room // 2
    if num_first <= num_second:
        keep_first = min(num_first, half)
        return keep_first, room - keep_first
    keep_second = min(num_second, half)
    return room - keep_second, keep_second
