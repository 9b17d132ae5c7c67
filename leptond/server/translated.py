"""Translations in the making: what came of each sentence so far, and how sentences are joined.

On the event loop, or on one thread of the pool; never on both at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from leptond.backend import EmittedChunk
from leptond.errors import BackendFault
from leptond.server.convert.translations import Search
from leptond.text import Detokenizer, Tokenizer
from leptond.text.sentences import Span
from leptond.v1 import common_pb2, translation_pb2

__all__ = ["SourceText", "TranslatedSentence", "TranslatedText"]


@dataclass(frozen=True, slots=True)
class SourceText:
    """One text and where its sentences stand, in characters.

    Attributes:
        gaps: what stands in front of each sentence of the translation, and behind the last one.
    """

    text: str
    spans: Sequence[Span]
    gaps: Sequence[str]

    @classmethod
    def of(cls, text: str, spans: Sequence[Span], joint: str) -> SourceText:
        """Keep the white space between sentences; `joint` stands where there is none."""
        starts = [start for start, _ in spans] + [len(text)]
        ends = [0] + [end for _, end in spans]
        gaps = [text[end:start] for end, start in zip(ends, starts, strict=True)]
        inner = [gap or joint for gap in gaps[1:-1]]
        return cls(text, spans, [gaps[0], *inner, gaps[-1]])

    @property
    def sentences(self) -> list[str]:
        """The sentences."""
        return [self.text[start:end] for start, end in self.spans]

    def byte_spans(self) -> list[Span]:
        """Where the sentences stand, in bytes of UTF-8."""
        found = []
        place = num_bytes = 0
        for start, end in self.spans:
            first = num_bytes + len(self.text[place:start].encode())
            num_bytes = first + len(self.text[start:end].encode())
            place = end
            found.append((first, num_bytes))
        return found


class TranslatedSentence:
    """What came of one sentence.

    Args:
        span: where it stands in its text, in bytes.
        prefix: tokens that begin its translation, as the caller asked.
        writer: of the model.
    """

    def __init__(
        self, span: Span, prefix: tuple[int, ...], search: Search, writer: Tokenizer
    ) -> None:
        self.is_done = False
        self._span = span
        self._prefix = prefix
        self._search = search
        self._writer = writer
        self._detokenizer = Detokenizer(writer)
        self._token_ids = list(prefix)
        # A search with beams gives no text before its end, so neither is the prefix told.
        early = prefix if search.beam_size == 1 else ()
        self._text: list[str] = [self._detokenizer.push(token_id) for token_id in early]
        self._num_told = 0
        self._score = 0.0
        self._hypotheses: list[tuple[list[int], float]] = []

    def take(self, chunk: EmittedChunk) -> None:
        """Take what the engine has made: a token, or with beams everything."""
        for token_id in chunk.token_ids:
            self._token_ids.append(token_id)
            if token_id not in self._writer.stop_ids:
                self._text.append(self._detokenizer.push(token_id))
        self._score += sum(chunk.scores)
        if not chunk.is_final:
            return
        self.is_done = True
        if "hypotheses" in chunk.tensors:
            lines = chunk.tensors["hypotheses"].tolist()
            scores = chunk.tensors["scores"].tolist()
            self._hypotheses = [
                ([*self._prefix, *(token for token in line if token >= 0)], score)
                for line, score in zip(lines, scores, strict=True)
            ]
            if not self._hypotheses:
                raise BackendFault("the engine gave no translation")
            self._text = [self._decode(self._hypotheses[0][0])]
        else:
            self._text.append(self._detokenizer.flush())
            num_made = len(self._token_ids) - len(self._prefix)
            score = self._score / max(1, num_made) ** self._search.length_penalty
            self._hypotheses = [(self._token_ids, score)]

    def news(self) -> str:
        """The text since the last time; with beams there is none before the end."""
        text = "".join(self._text[self._num_told :])
        self._num_told = len(self._text)
        return text

    @property
    def text(self) -> str:
        """The best translation, as far as it is made."""
        return "".join(self._text)

    def to_wire(self) -> translation_pb2.TranslatedSentence:
        """The whole sentence, once it is done."""
        start, end = self._span
        return translation_pb2.TranslatedSentence(
            start_byte=start,
            end_byte=end,
            alternatives=[
                translation_pb2.TranslationAlternative(
                    text=self._decode(ids),
                    token_ids=ids,
                    score=score,
                    finish_reason=self._finish_reason(ids),
                )
                for ids, score in self._hypotheses
            ],
        )

    def _decode(self, ids: Sequence[int]) -> str:
        return self._writer.decode([one for one in ids if one not in self._writer.stop_ids])

    def _finish_reason(self, ids: Sequence[int]) -> common_pb2.FinishReason.ValueType:
        # A source without content has an empty translation, which nothing cut short.
        is_whole = len(ids) <= len(self._prefix) or ids[-1] in self._writer.stop_ids
        return common_pb2.FINISH_REASON_STOP if is_whole else common_pb2.FINISH_REASON_LENGTH


@dataclass(slots=True)
class TranslatedText:
    """One text whose sentences finish in any order and are told in theirs.

    Attributes:
        index: of the input.
    """

    index: int
    source: SourceText
    sentences: Sequence[TranslatedSentence]
    _current: int = field(default=0, init=False)
    _has_begun: bool = field(default=False, init=False)

    @property
    def is_told(self) -> bool:
        """Whether everything of it was told."""
        return self._current == len(self.sentences)

    def pieces(self) -> list[translation_pb2.TranslateStreamResponse]:
        """What can be told now and was not: messages in their order."""
        told = []
        while self._current < len(self.sentences):
            sentence = self.sentences[self._current]
            news = sentence.news()
            if not news and not sentence.is_done:
                break
            if not self._has_begun:
                news = self.source.gaps[self._current] + news
                self._has_begun = True
            piece = translation_pb2.TranslateStreamResponse(
                input_index=self.index, sentence_index=self._current, text=news
            )
            told.append(piece)
            if not sentence.is_done:
                break
            piece.sentence.CopyFrom(sentence.to_wire())
            self._current += 1
            self._has_begun = False
            if self.is_told:
                piece.text += self.source.gaps[-1]
                piece.is_last = True
        return told

    def to_wire(self) -> translation_pb2.Translation:
        """All of it, once every sentence is done."""
        parts = [
            part
            for gap, sentence in zip(self.source.gaps, self.sentences, strict=False)
            for part in (gap, sentence.text)
        ]
        return translation_pb2.Translation(
            text="".join([*parts, self.source.gaps[-1]]),
            sentences=[sentence.to_wire() for sentence in self.sentences],
        )
