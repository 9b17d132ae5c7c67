"""Translations."""

from __future__ import annotations

from dataclasses import dataclass

from leptond_client.values.call import CallInfo
from leptond_client.values.text import FinishReason

__all__ = [
    "TranslatedSentence",
    "Translation",
    "TranslationAlternative",
    "TranslationPiece",
    "Translations",
]


@dataclass(frozen=True, slots=True)
class TranslationAlternative:
    """One way to translate a sentence.

    Attributes:
        text: the translation.
        token_ids: all tokens of it, the end token included.
        score: the log-probability that ranked it, after the length penalty.
        finish_reason: why it ended.
    """

    text: str
    token_ids: tuple[int, ...]
    score: float
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class TranslatedSentence:
    """A sentence of the source, `start_byte` to `end_byte` of its UTF-8, and its translations.

    Attributes:
        start_byte: where it begins.
        end_byte: where it ends, exclusive.
        alternatives: best first.
    """

    start_byte: int
    end_byte: int
    alternatives: tuple[TranslationAlternative, ...]


@dataclass(frozen=True, slots=True)
class Translation:
    """The translation of one text: the best of each sentence, joined.

    Attributes:
        text: the whole translation.
        sentences: in their order; a text that was not split is one.
    """

    text: str
    sentences: tuple[TranslatedSentence, ...]


@dataclass(frozen=True, slots=True)
class Translations:
    """The translations of several texts.

    Attributes:
        results: one per text, in their order.
        source_language: as the model's own code; empty for a stream.
        target_language: likewise.
        info: what is known of the call.
    """

    results: tuple[Translation, ...]
    source_language: str
    target_language: str
    info: CallInfo


@dataclass(frozen=True, slots=True)
class TranslationPiece:
    """A piece of one text's translation. The pieces of a text, joined in their order, are it.

    Attributes:
        input_index: which text, from 0; texts can be translated side by side.
        sentence_index: which sentence of it, from 0.
        text: what is appended.
        sentence: the whole sentence, in its last piece.
        is_last: whether the text is done.
    """

    input_index: int
    sentence_index: int
    text: str
    sentence: TranslatedSentence | None = None
    is_last: bool = False
