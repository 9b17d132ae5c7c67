"""Text to token ids and back, for one model.

Two tokenizers of the `tokenizers` library work side by side, because the switch that makes control
tokens ordinary text belongs to the object and not to the call. One parses control tokens in text;
the other takes text for text, and knows control tokens by their marks only (`control_marks`).

Made by a loader thread; immutable; used on any thread. `encode` releases the GIL while it works,
yet a long text takes long: call it off the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

from tokenizers import AddedToken
from tokenizers import Tokenizer as Engine

from leptond.checkpoint import GenerationDefaults
from leptond.errors import InvalidRequest, ModelFailed, RequestTooLarge
from leptond.text.control_marks import RESERVED, ControlMarks
from leptond.text.generation_defaults import read_generation_defaults
from leptond.text.prompt import PromptSegment, RenderedPrompt
from leptond.text.vocabulary import TokenVocabulary

__all__ = ["Tokenizer"]

# What a vocabulary without bytes cannot express becomes one unknown token, however long.
_LONGEST_UNKNOWN_BYTES = 1024


class Tokenizer:
    """The tokenizer of one model.

    Args:
        definition: the text of its tokenizer.json. Truncation and padding in it are not obeyed:
            the model's own limit is.
        generation: BOS, EOS and stop tokens.

    Attributes:
        vocab_size: number of token ids; a model's own vocabulary may be padded beyond.
        bos_id, stop_ids, add_bos: of `generation`.
        marks: marks of the control tokens, for chat templates.

    Raises:
        ModelFailed: the definition cannot be read, or contradicts `generation`.
    """

    def __init__(self, definition: str, generation: GenerationDefaults) -> None:
        self.generation = generation
        self.bos_id = generation.bos_token_id
        self.stop_ids = frozenset(generation.stop_token_ids)
        self.add_bos = generation.add_bos
        self._parsing = _engine(definition)
        added = self._parsing.get_added_tokens_decoder()
        self._vocabulary = _read_vocabulary(self._parsing, frozenset(added))
        self.vocab_size = self._vocabulary.size
        if beyond := [i for i in (*self.stop_ids, self.bos_id) if i and i >= self.vocab_size]:
            raise ModelFailed(f"generation.json: token {beyond[0]} is not in the vocabulary")

        control = {
            token_id: token
            for token_id, token in sorted(added.items())
            if token.special or token_id in self.stop_ids or token_id == self.bos_id
        }
        self._special_ids = frozenset(control)
        self.marks = ControlMarks({token.content: token_id for token_id, token in control.items()})
        self._plain = _engine(definition)
        self._control = list(control.values())
        self._control_of_mark = self._teach_marks(control)
        self._whole_texts: dict[bool, dict[int, str]] = {False: {}, True: {}}
        # Text may become the unknown token; no other control token may come out of text.
        unknown_id = _unknown_id(self._parsing, generation)
        self._unforgeable_ids = self._special_ids - {unknown_id}
        has_every_byte = unknown_id is None or getattr(self._parsing.model, "byte_fallback", False)
        longest = self._vocabulary.longest_bytes()
        self._longest_bytes = longest if has_every_byte else max(longest, _LONGEST_UNKNOWN_BYTES)

    @classmethod
    def load(cls, directory: Path, file: str = "tokenizer.json") -> Tokenizer:
        """Read a tokenizer and `generation.json` of a model directory.

        Args:
            directory: of the version.
            file: name of the tokenizer; of a translator, answers may have their own.

        Raises:
            ModelFailed: a file is missing or cannot be read.
        """
        generation = read_generation_defaults(directory)
        path = directory / file
        try:
            return cls(path.read_text(encoding="utf-8"), generation)
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFailed(f"{path}: {error}") from error

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Text and id of every control token."""
        return self.marks.token_ids

    def encode(
        self, text: str, *, parse_special: bool = True, add_bos: bool | None = None
    ) -> list[int]:
        """Return the token ids of `text`.

        Args:
            text: any Unicode text, NUL included.
            parse_special: control tokens in the text become what they name; else they are text.
            add_bos: put the BOS token in front; None does as the model was trained.

        Raises:
            InvalidRequest: lone surrogates, or text that this vocabulary cannot keep apart from
                a control token.
        """
        if parse_special:
            ids = _encode(self._parsing, [text])
        else:
            ids = self._encode_segments([PromptSegment(text)])
        adds = self.add_bos if add_bos is None else add_bos
        return [self.bos_id, *ids] if adds and self.bos_id is not None else ids

    def encode_rendered(self, prompt: RenderedPrompt) -> list[int]:
        """Return the token ids of a rendered chat; control tokens are the template's own only.

        No BOS is added: the template writes its own.

        Raises:
            InvalidRequest: as `encode`, or a segment names a control token that does not exist.
        """
        return self._encode_segments(prompt.segments)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text of `ids`; bytes that are no UTF-8 become U+FFFD.

        Raises:
            InvalidRequest: an id is not in the vocabulary.
        """
        for token_id in ids:
            self._vocabulary.check_id(token_id)
        data = b"".join(
            self._vocabulary.bytes_of(token_id)
            for token_id in ids
            if not (skip_special and token_id in self._special_ids)
        )
        if self.strips_leading_space:
            data = data.removeprefix(b" ")
        return data.decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the exact bytes of a token, which need not be UTF-8; none for padding.

        Ids beyond `vocab_size` are a padded model's and have no bytes.
        """
        return self._vocabulary.bytes_of(token_id)

    def is_special(self, token_id: int) -> bool:
        """Say whether a token is a control token."""
        return token_id in self._special_ids

    def whole_texts(self, *, skip_special: bool) -> dict[int, str]:
        """Return the texts of tokens that are whole characters, as far as they are known.

        Shared by all detokenizers, who fill it as they go: an entry depends on its token only.
        """
        return self._whole_texts[skip_special]

    @property
    def strips_leading_space(self) -> bool:
        """Whether a text loses the space that its first token begins with."""
        return self._vocabulary.strips_leading_space

    def check_text_size(self, text: str, max_tokens: int, field: str) -> None:
        """Refuse what can never fit, before it costs anything.

        Args:
            text: what a caller sent.
            max_tokens: room for it.
            field: the request's field, for the message.

        Raises:
            RequestTooLarge: longer than `max_tokens` of the longest token.
            InvalidRequest: lone surrogates.
        """
        max_bytes = max_tokens * self._longest_bytes
        num_bytes = len(text)  # at least
        if num_bytes <= max_bytes and not text.isascii():
            try:
                num_bytes = len(text.encode())
            except UnicodeEncodeError as error:
                raise _surrogate(text[error.start], field) from None
        if num_bytes > max_bytes:
            message = (
                f"{field} has {num_bytes} bytes or more; the model takes {max_tokens} tokens, "
                f"which is {max_bytes} bytes at most"
            )
            raise RequestTooLarge(message, field=field)

    def _teach_marks(self, control: Mapping[int, AddedToken]) -> dict[int, int]:
        """Have the plain engine take control tokens for text, and marks for control tokens.

        Returns:
            Each mark's id in the plain engine, to the id of its control token.
        """
        self._plain.add_special_tokens(self._control)
        self._plain.encode_special_tokens = True
        marks = {token_id: self.marks.mark_of[token.content] for token_id, token in control.items()}
        self._plain.add_tokens(
            [
                AddedToken(
                    marks[token_id],
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    normalized=False,
                    special=False,
                )
                for token_id, token in control.items()
            ]
        )
        taught = {self._plain.token_to_id(mark): token_id for token_id, mark in marks.items()}
        if any(mark_id is None or mark_id < self.vocab_size for mark_id in taught):
            raise ModelFailed("tokenizer.json: the token ids are not consecutive")
        return cast("dict[int, int]", taught)

    @cached_property
    def _unmarked(self) -> Engine:
        """A third engine, for plain text with characters that look like marks: hardly ever made."""
        engine = _engine(self._parsing.to_str())
        engine.add_special_tokens(self._control)
        engine.encode_special_tokens = True
        return engine

    def _encode_segments(self, segments: Iterable[PromptSegment]) -> list[int]:
        ids: list[int] = []
        run: list[str] = []
        for segment in segments:
            if segment.control_id is not None:
                run.append(self._mark_of_segment(segment))
            elif segment.text.isascii() or not RESERVED.search(segment.text):
                run.append(segment.text)
            else:
                ids += self._encode_plain(self._plain, "".join(run))
                ids += self._encode_plain(self._unmarked, segment.text)
                run = []
        return ids + self._encode_plain(self._plain, "".join(run))

    def _mark_of_segment(self, segment: PromptSegment) -> str:
        if self.control_tokens.get(segment.text) != segment.control_id:
            raise InvalidRequest(
                f"{segment.text!r} with id {segment.control_id} is no control token of this model"
            )
        return self.marks.mark_of[segment.text]

    def _encode_plain(self, engine: Engine, text: str) -> list[int]:
        """Encode text in which only marks are control tokens; with `_unmarked`, nothing is."""
        if not text:
            return []
        ids = _encode(engine, [text])
        if not self._unforgeable_ids.isdisjoint(ids):
            forged = next(i for i in ids if i in self._unforgeable_ids)
            raise InvalidRequest(
                f"the text holds {self.token_bytes(forged).decode(errors='replace')!r}, "
                "which this model's vocabulary cannot express as plain text"
            )
        control = self._control_of_mark
        return [control.get(token_id, token_id) for token_id in ids]


def _engine(definition: str) -> Engine:
    try:
        engine = Engine.from_str(definition)
    except Exception as error:  # the library raises no class of its own
        raise ModelFailed(f"tokenizer.json: {error}") from error
    engine.no_truncation()
    engine.no_padding()
    return engine


def _encode(engine: Engine, texts: list[str]) -> list[int]:
    # `encode` would hold the GIL all the while; the batch calls do not.
    try:
        return engine.encode_batch_fast(texts, add_special_tokens=False)[0].ids
    except TypeError:
        # What the library says of text that it cannot turn into UTF-8.
        found = next(char for char in texts[0] if "\ud800" <= char <= "\udfff")
        raise _surrogate(found) from None


def _surrogate(char: str, field: str | None = None) -> InvalidRequest:
    message = f"{field or 'the text'} holds U+{ord(char):04X}, a lone surrogate: not text"
    return InvalidRequest(message, field=field)


def _read_vocabulary(engine: Engine, added: frozenset[int]) -> TokenVocabulary:
    ids = engine.get_vocab(with_added_tokens=True)
    tokens: list[str | None] = [None] * (max(ids.values(), default=-1) + 1)
    for token, token_id in ids.items():
        tokens[token_id] = token
    decoder = engine.decoder
    state = None if decoder is None else json.loads(decoder.__getstate__())
    return TokenVocabulary(tokens, added, state)


def _unknown_id(engine: Engine, generation: GenerationDefaults) -> int | None:
    """Return the token that stands for text which no other token can express."""
    if not hasattr(engine.model, "unk_token"):  # a Unigram model has one and does not show it
        return generation.unknown_token_id
    token = engine.model.unk_token
    return None if token is None else engine.token_to_id(token)
