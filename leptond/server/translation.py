"""`leptond.v1.TranslationService`. On the event loop.

A call's texts are cut into sentences, each a row of a whole call: sentences of all callers share
runs, and finish in any order. They are told in theirs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from leptond.backend import BatchRow
from leptond.checkpoint import Seq2SeqDefaults
from leptond.errors import InvalidRequest, LeptondError, RequestTooLarge, UnsupportedCapability
from leptond.models import ServedModel
from leptond.scheduler import BatchItem
from leptond.server.batching import BatchCalls
from leptond.server.calls import Call
from leptond.server.convert.requests import check_determinism
from leptond.server.convert.translations import Search, search
from leptond.server.translated import SourceText, TranslatedSentence, TranslatedText
from leptond.telemetry import TRANSLATE
from leptond.text.translator_input import TranslatorInput
from leptond.types import Task
from leptond.v1 import translation_pb2

__all__ = ["TranslationMethods"]

_MAX_INPUTS = 10_000
_MAX_SENTENCES = 10_000
# Of one call: what keeps a thread of the pool busy for a second or two.
_MAX_TEXT_BYTES = 1 << 20
_COUNTED = re.compile(r"\Atexts\[\d+\]")

Request: TypeAlias = translation_pb2.TranslateRequest | translation_pb2.TranslateStreamRequest


class TranslationMethods:
    """The two methods, by their names in snake case."""

    def __init__(self, calls: BatchCalls) -> None:
        self._calls = calls

    async def translate(
        self, request: translation_pb2.TranslateRequest, call: Call
    ) -> translation_pb2.TranslateResponse:
        """Translate texts; everything in one message."""
        work = _Work(request)
        async with self._calls.admitted(
            request, call, TRANSLATE, lambda model: self._calls.pool.run(work.prepare, model)
        ) as inference:
            while answers := await inference.stream.next():
                for answer in answers:
                    work.sentences[answer.index].take(answer.chunk)
            inference.summary = inference.stream.final
            return translation_pb2.TranslateResponse(
                translations=await self._calls.pool.run(work.to_wire),
                source_language=work.source_language,
                target_language=work.target_language,
                info=inference.info(call),
            )

    async def translate_stream(
        self, request: translation_pb2.TranslateStreamRequest, call: Call
    ) -> None:
        """Translate texts; a message per piece, the sentences of a text in their order."""
        work = _Work(request)
        async with self._calls.admitted(
            request,
            call,
            TRANSLATE,
            lambda model: self._calls.pool.run(work.prepare, model),
            is_streamed=True,
        ) as inference:
            last = translation_pb2.TranslateStreamResponse()
            num_open = len(work.texts)
            while answers := await inference.stream.next():
                touched = {}
                for answer in answers:
                    work.sentences[answer.index].take(answer.chunk)
                    text = work.text_of[answer.index]
                    touched[text.index] = text
                for text in touched.values():
                    pieces = text.pieces()
                    num_open -= text.is_told and bool(pieces)
                    if num_open == 0 and pieces:
                        last = pieces.pop()  # it also says how the call went
                    for piece in pieces:
                        await call.write(piece)
            inference.summary = inference.stream.final
            last.info.CopyFrom(inference.info(call))
            await call.write(last)


@dataclass(slots=True)
class _Work:
    """One call: its texts, sentence by sentence, in the order of its rows."""

    request: Request
    source_language: str = ""
    target_language: str = ""
    texts: Sequence[TranslatedText] = ()
    sentences: Sequence[TranslatedSentence] = ()
    text_of: Sequence[TranslatedText] = ()

    def prepare(self, model: ServedModel) -> list[BatchItem]:
        """Check the request, cut its texts, make its rows. Blocks: on a thread of the pool.

        Raises:
            UnsupportedCapability: the model does not translate, or not like that.
            InvalidRequest, RequestTooLarge: a field is out of its range.
        """
        wire = self.request
        model.require(Task.TRANSLATE)
        check_determinism(wire.options, model.name, model.capabilities)
        _check_inputs(wire)
        way = TranslatorInput(
            model.encoder,
            model.name,
            wire.source_language,
            wire.target_language,
            model.max_context_tokens,
        )
        wanted = search(wire.translation, way.defaults)
        self.source_language, self.target_language = way.source, way.target
        texts: list[TranslatedText] = []
        sentences: list[TranslatedSentence] = []
        text_of: list[TranslatedText] = []
        items: list[BatchItem] = []
        for index, one in enumerate(wire.inputs):
            source = self._split(way, one.text, index)
            if len(sentences) + len(source.spans) > _MAX_SENTENCES:
                msg = f"inputs have more than {_MAX_SENTENCES} sentences, the most of one call"
                raise RequestTooLarge(msg, field="inputs")
            prefixes = [_prefix(model, one.target_prefix, way.defaults, index)]
            prefixes += [()] * (len(source.spans) - 1)
            rows = _rows(way, wanted, source, prefixes, index)
            items += rows
            made = [
                TranslatedSentence(span, prefix, wanted, model.tokenizer)
                for span, prefix in zip(source.byte_spans(), prefixes, strict=True)
            ]
            texts.append(TranslatedText(index, source, made))
            sentences += made
            text_of += [texts[-1]] * len(made)
        self.texts, self.sentences, self.text_of = texts, sentences, text_of
        return items

    def to_wire(self) -> list[translation_pb2.Translation]:
        """All translations, once every sentence is done."""
        return [text.to_wire() for text in self.texts]

    def _split(self, way: TranslatorInput, text: str, index: int) -> SourceText:
        field = f"inputs[{index}].text"
        if not text.strip():
            raise InvalidRequest(f"{field} holds nothing to translate", field=field)
        splitting = self.request.translation.sentence_splitting
        try:
            if splitting == translation_pb2.SENTENCE_SPLITTING_NEVER:
                start = len(text) - len(text.lstrip())
                spans = [(start, len(text.rstrip()))]
            else:
                always = splitting == translation_pb2.SENTENCE_SPLITTING_ALWAYS
                spans = way.split(text, always=always, most=_MAX_SENTENCES)
        except LeptondError as error:
            raise _renamed(error, field) from error
        return SourceText.of(text, spans, way.joint)


def _check_inputs(wire: Request) -> None:
    if not wire.inputs:
        raise InvalidRequest("inputs is empty", field="inputs")
    if len(wire.inputs) > _MAX_INPUTS:
        msg = f"inputs has {len(wire.inputs)} entries; at most {_MAX_INPUTS} are taken in one call"
        raise RequestTooLarge(msg, field="inputs")
    if wire.ByteSize() > _MAX_TEXT_BYTES:
        msg = f"inputs have more than {_MAX_TEXT_BYTES} bytes, the most of one call"
        raise RequestTooLarge(msg, field="inputs")
    splitting = wire.translation.sentence_splitting
    if splitting not in translation_pb2.SentenceSplitting.values():
        field = "translation.sentence_splitting"
        raise UnsupportedCapability(f"{field} {splitting} is not known", field=field)


def _rows(
    way: TranslatorInput,
    wanted: Search,
    source: SourceText,
    prefixes: Sequence[tuple[int, ...]],
    index: int,
) -> list[BatchItem]:
    try:
        encoded = way.encode(source.sentences)
    except LeptondError as error:
        raise _renamed(error, f"inputs[{index}].text") from error
    return [
        BatchItem(
            BatchRow(
                token_ids=ids,
                tensors={"target_prefix": np.array([*way.answer_prefix, *prefix], np.int64)},
                options=wanted.row_options,
            ),
            cost_tokens=len(ids) * wanted.beam_size,
        )
        for ids, prefix in zip(encoded, prefixes, strict=True)
    ]


def _prefix(
    model: ServedModel, text: str, defaults: Seq2SeqDefaults, index: int
) -> tuple[int, ...]:
    """Tokens with which the caller wants the translation to begin."""
    if not text:
        return ()
    field = f"inputs[{index}].target_prefix"
    most = defaults.max_target_tokens - 2  # a language before it and a token behind it
    model.tokenizer.check_text_size(text, most, field)
    ids = tuple(model.tokenizer.encode(text, parse_special=False, add_bos=False))
    if len(ids) > most:
        msg = f"{field} has {len(ids)} tokens; at most {most} fit"
        raise RequestTooLarge(msg, field=field)
    if max(ids, default=0) >= defaults.vocab_size:
        raise InvalidRequest(f"{field} has text that the model cannot write", field=field)
    return ids


def _renamed(error: LeptondError, field: str) -> LeptondError:
    """The same of a field of the request: the text layer counts the texts that it was given."""
    message, num_found = _COUNTED.subn(field, error.message, count=1)
    return type(error)(message if num_found else f"{field}: {message}", field=field)
