"""What a translator reads: its languages, their tokens and prompts, and sentences in its own ids.

Made once per call; used on any thread. Encoding blocks: call it off the event loop.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from leptond.checkpoint import LanguageStyle, Seq2SeqDefaults
from leptond.errors import InvalidRequest, RequestTooLarge, UnsupportedCapability
from leptond.text.encoder_tokenizer import EncoderTokenizer
from leptond.text.languages import LanguageTag, find_language
from leptond.text.sentences import Span, cut_in_two, split_sentences, strip_span

__all__ = ["TranslatorInput", "known_languages"]

_MAX_NAMED = 40  # languages that an error lists
_PROMPT_NAME = re.compile(r"translation_([A-Za-z-]+)_to_([A-Za-z-]+)")
_SPACELESS = frozenset(("bo", "dz", "ja", "km", "lo", "my", "th", "yue", "zh"))
_UNBOUNDED = 1 << 30


def known_languages(defaults: Seq2SeqDefaults) -> tuple[list[str], list[str]]:
    """Return the codes of the languages that a model translates from, and to, as far as it says."""
    several = sorted(defaults.languages)
    match defaults.language_style:
        case LanguageStyle.SOURCE_AND_TARGET:
            return several, several
        case LanguageStyle.TARGET_IN_SOURCE:
            return list(_named(defaults.source_language)), several
        case LanguageStyle.NONE:
            pairs = _pairs(defaults)
            sources, targets = ({pair[side] for pair in pairs} - {""} for side in (0, 1))
            return sorted(sources), sorted(targets)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What stands around every sentence of one pair of languages.

    Attributes:
        prompt: text in front of it.
        front: ids in front of everything.
        own_id, source_id: the language token that the tokenizer puts in, and what it must be.
    """

    prompt: str = ""
    front: tuple[int, ...] = ()
    own_id: int | None = None
    source_id: int | None = None


class TranslatorInput:
    """One model's way from one language to another.

    Args:
        encoder: the model's; of a sequence-to-sequence model.
        name: the model's, for messages.
        source, target: as the caller wrote them; "" where nothing was.
        max_tokens: longest input, special tokens included.

    Attributes:
        defaults: the model's.
        source, target: the model's own codes; "" where it does not name its languages.
        answer_prefix: ids with which every answer must begin.

    Raises:
        UnsupportedCapability: the model is no translator of texts.
        InvalidRequest: a language is missing, unknown, ambiguous, or cannot be told to the model.
    """

    def __init__(
        self, encoder: EncoderTokenizer, name: str, source: str, target: str, max_tokens: int
    ) -> None:
        defaults = encoder.defaults
        if not isinstance(defaults, Seq2SeqDefaults):
            raise UnsupportedCapability(f"model {name} does not translate", field="model")
        self.defaults = defaults
        self._encoder = encoder
        self._name = name
        self.max_tokens = min(max_tokens, defaults.max_tokens)
        self.answer_prefix: tuple[int, ...] = ()
        match defaults.language_style:
            case LanguageStyle.SOURCE_AND_TARGET:
                self._choose_both(defaults, source, target)
            case LanguageStyle.TARGET_IN_SOURCE:
                self._choose_target(defaults, source, target)
            case LanguageStyle.NONE:
                self._choose_pair(defaults, source, target)
        self._language = LanguageTag.parse(self.source).language

    @property
    def joint(self) -> str:
        """What stands between two translated sentences that nothing stood between in the source."""
        return "" if LanguageTag.parse(self.target).language in _SPACELESS else " "

    def split(self, text: str, *, always: bool, most: int = _UNBOUNDED) -> list[Span]:
        """Return the sentences of a text, cut further where one is longer than the model takes.

        Args:
            text: any text; white space between its sentences belongs to none.
            always: also split a text that the model could take as it is.
            most: sentences that may be.

        Raises:
            RequestTooLarge: there are more, or not even one character fits.
        """
        whole = strip_span(text, (0, len(text)))
        room = self.max_tokens - len(self._frame.front)
        if not always and self._num_tokens([text[slice(*whole)]])[0] <= room:
            return [whole]
        todo = split_sentences(text, self._language)
        spans: list[Span] = []
        while todo:
            if len(spans) + len(todo) > most:
                raise RequestTooLarge(f"more than {most} sentences", field="text")
            counts = self._num_tokens([text[slice(*span)] for span in todo])
            longer = []
            for span, count in zip(todo, counts, strict=True):
                if count <= room:
                    spans.append(span)
                else:
                    longer += _parts(text, span, count, room)
            todo = longer
        return sorted(spans)

    def encode(self, sentences: Sequence[str]) -> list[tuple[int, ...]]:
        """Return what the encoder reads for each sentence; special tokens in it are text.

        Raises:
            RequestTooLarge: one is longer than the model takes; it names `texts[i]`.
            InvalidRequest: lone surrogates, likewise.
        """
        encoded = self._encoder.encode(
            sentences,
            max_tokens=self.max_tokens - len(self._frame.front),
            truncate=None,
            prompt=self._frame.prompt,
            parse_special=False,
        )
        return [self._framed(one.token_ids) for one in encoded]

    def _num_tokens(self, sentences: Sequence[str]) -> list[int]:
        encoded = self._encoder.encode(
            sentences,
            max_tokens=_UNBOUNDED,
            truncate=None,
            prompt=self._frame.prompt,
            parse_special=False,
        )
        return [len(one.token_ids) for one in encoded]

    def _framed(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        frame = self._frame
        if frame.source_id is not None and frame.source_id != frame.own_id:
            # No text becomes a language token, so these are the tokenizer's own.
            ids = tuple(frame.source_id if one == frame.own_id else one for one in ids)
        return (*frame.front, *ids)

    # ------------------------------------------------------------------ languages
    def _choose_both(self, defaults: Seq2SeqDefaults, source: str, target: str) -> None:
        """The source's token frames the source, the target's begins the answer."""
        languages = defaults.languages
        self.source = self._find(source, "source_language", languages)
        self.target = self._find(target, "target_language", languages)
        ids = {code: self._encoder.token_id(token) for code, token in languages.items()}
        (empty,) = self._encoder.encode([""], max_tokens=_UNBOUNDED, truncate=None)
        own = set(empty.token_ids).intersection(ids.values())
        if len(own) != 1:
            msg = f"the tokenizer of model {self._name} puts in {len(own)} language tokens, not one"
            raise UnsupportedCapability(msg, field="model")
        self._frame = _Frame(own_id=own.pop(), source_id=ids[self.source])
        self.answer_prefix = (ids[self.target],)

    def _choose_target(self, defaults: Seq2SeqDefaults, source: str, target: str) -> None:
        """The target's token goes in front of the source."""
        self.source = self._find(source, "source_language", _named(defaults.source_language))
        self.target = self._find(target, "target_language", defaults.languages)
        self._frame = _Frame(front=(self._encoder.token_id(defaults.languages[self.target]),))

    def _choose_pair(self, defaults: Seq2SeqDefaults, source: str, target: str) -> None:
        """One pair, or the pairs that prompts name."""
        pairs = _pairs(defaults)
        sources = dict.fromkeys(pair[0] for pair in pairs if pair[0])
        self.source = self._find(source, "source_language", sources)
        targets = dict.fromkeys(b for a, b in pairs if b and a == self.source)
        self.target = self._find(target, "target_language", targets)
        self._frame = _Frame(prompt=pairs[self.source, self.target])

    def _find(self, asked: str, field: str, known: Collection[str]) -> str:
        """The known code that was asked for; the only one when nothing was."""
        if not asked:
            if len(known) <= 1:
                return next(iter(known), "")
            raise self._refused(f"{field} is not set", field, known)
        if not known:
            msg = f"{field} is {asked[:40]!r}; model {self._name} does not name it: leave it unset"
            raise InvalidRequest(msg, field=field)
        found = find_language(asked, known)
        if len(found) > 1:
            raise self._refused(f"{field} {asked[:40]!r} may mean several", field, found)
        if not found:
            raise self._refused(f"{field} {asked[:40]!r} is not known", field, known)
        return found[0]

    def _refused(self, what: str, field: str, known: Collection[str]) -> InvalidRequest:
        codes = sorted(known)
        more = f" and {len(codes) - _MAX_NAMED} more" if len(codes) > _MAX_NAMED else ""
        listed = ", ".join(codes[:_MAX_NAMED]) + more
        return InvalidRequest(f"{what}; model {self._name} has {listed}", field=field)


def _pairs(defaults: Seq2SeqDefaults) -> dict[tuple[str, str], str]:
    """The prompt of each pair that prompts name; else the model's one pair, "" for unnamed ones."""
    pairs = {
        (found[1], found[2]): prompt
        for name, prompt in defaults.prompts.items()
        if (found := _PROMPT_NAME.fullmatch(name))
    }
    return pairs or {(defaults.source_language or "", defaults.target_language or ""): ""}


def _named(code: str | None) -> tuple[str, ...]:
    return (code,) if code else ()


def _parts(text: str, span: Span, num_tokens: int, room: int) -> list[Span]:
    """Cut a span in two, and so on until every part should fit, as tokens go by characters."""
    start, end = span
    if end - start <= 1:
        msg = "not even one character fits beside the special tokens and the prompt"
        raise RequestTooLarge(msg, field="text")
    place = start + cut_in_two(text[start:end])
    found: list[Span] = []
    for half in (strip_span(text, (start, place)), strip_span(text, (place, end))):
        share = num_tokens * (half[1] - half[0]) // (end - start)
        found += (
            [half] if share <= room or half[1] - half[0] <= 1 else _parts(text, half, share, room)
        )
    return found
