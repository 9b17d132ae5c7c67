"""Sentences that finish in any order are told in theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leptond.backend import EmittedChunk
from leptond.backend.fake import END_OF_TURN
from leptond.backend.fake.assets import write_fake_assets
from leptond.errors import BackendFault
from leptond.server.convert.translations import Search
from leptond.server.translated import SourceText, TranslatedSentence, TranslatedText
from leptond.text import Tokenizer
from leptond.v1 import common_pb2

GREEDY = Search(1, 1, 1.0, {})
BEAMS = Search(2, 2, 1.0, {})
SOURCE = SourceText.of(" é one.  Two.Three. ", [(1, 7), (9, 13), (13, 19)], " ")


@pytest.fixture
def writer(tmp_path: Path) -> Tokenizer:
    write_fake_assets(tmp_path)
    return Tokenizer.load(tmp_path)


def translated(writer: Tokenizer, search: Search, prefix: str = "") -> TranslatedText:
    prefixes = [tuple(writer.encode(prefix)), (), ()]
    sentences = [
        TranslatedSentence(span, ids, search, writer)
        for span, ids in zip(SOURCE.byte_spans(), prefixes, strict=True)
    ]
    return TranslatedText(4, SOURCE, sentences)


def write(sentence: TranslatedSentence, writer: Tokenizer, text: str, *, ends: bool = True) -> None:
    for token_id in writer.encode(text):
        sentence.take(EmittedChunk((token_id,), (-0.5,)))
    if ends:
        sentence.take(EmittedChunk((END_OF_TURN,), (-1.0,), is_final=True))


def beams(*answers: list[int]) -> EmittedChunk:
    hypotheses = np.full((len(answers), max(map(len, answers), default=0)), -1, np.int64)
    for line, ids in zip(hypotheses, answers, strict=True):
        line[: len(ids)] = ids
    scores = -np.arange(1, len(answers) + 1, dtype=np.float32)
    return EmittedChunk(tensors={"hypotheses": hypotheses, "scores": scores}, is_final=True)


def test_the_white_space_of_a_text_is_kept_and_touching_sentences_are_parted():
    assert SOURCE.sentences == ["é one.", "Two.", "Three."]
    assert SOURCE.gaps == [" ", "  ", " ", " "]
    assert SOURCE.byte_spans() == [(1, 8), (10, 14), (14, 20)]


def test_a_later_sentence_waits_for_those_before_it(writer: Tokenizer):
    text = translated(writer, GREEDY)
    first, second, third = text.sentences
    write(second, writer, "zwei")
    assert text.pieces() == []
    write(first, writer, "ei", ends=False)
    (piece,) = text.pieces()
    assert (piece.input_index, piece.sentence_index, piece.text) == (4, 0, " ei")
    write(third, writer, "dr", ends=False)
    write(first, writer, "ns")
    told = text.pieces()
    assert [(one.sentence_index, one.text) for one in told] == [
        (0, "ns"),
        (1, "  zwei"),
        (2, " dr"),
    ]
    assert [one.HasField("sentence") for one in told] == [True, True, False]
    write(third, writer, "ei")
    (last,) = text.pieces()
    assert (last.text, last.is_last, text.is_told) == ("ei ", True, True)
    assert text.pieces() == []
    assert text.to_wire().text == " eins  zwei drei "


def test_a_prefix_is_told_with_beams_too_when_they_end(writer: Tokenizer):
    text = translated(writer, BEAMS, prefix="Das ")
    first, second, third = text.sentences
    second.take(beams(writer.encode("zwei")))
    assert text.pieces() == []
    first.take(beams([*writer.encode("eins"), END_OF_TURN], writer.encode("uno")))
    third.take(beams(writer.encode("drei")))
    told = text.pieces()
    assert "".join(one.text for one in told) == " Das eins  zwei drei "
    best, other = told[0].sentence.alternatives
    assert (best.text, other.text) == ("Das eins", "Das uno")
    assert (best.score, other.score) == (-1.0, -2.0)
    assert best.finish_reason == common_pb2.FINISH_REASON_STOP
    assert other.finish_reason == common_pb2.FINISH_REASON_LENGTH


def test_a_score_is_divided_by_the_length(writer: Tokenizer):
    (sentence, *_) = translated(writer, GREEDY).sentences
    write(sentence, writer, "ab")
    (only,) = sentence.to_wire().alternatives
    assert only.score == pytest.approx((-0.5 - 0.5 - 1.0) / 3)
    assert list(only.token_ids) == [*writer.encode("ab"), END_OF_TURN]
    assert only.text == "ab"


def test_a_source_without_content_has_an_empty_whole_translation(writer: Tokenizer):
    (sentence, *_) = translated(writer, GREEDY).sentences
    sentence.take(EmittedChunk(is_final=True))
    (only,) = sentence.to_wire().alternatives
    assert (only.text, only.score, only.finish_reason) == ("", 0.0, common_pb2.FINISH_REASON_STOP)


def test_an_engine_that_gives_no_hypothesis_is_at_fault(writer: Tokenizer):
    (sentence, *_) = translated(writer, BEAMS).sentences
    with pytest.raises(BackendFault):
        sentence.take(beams())
