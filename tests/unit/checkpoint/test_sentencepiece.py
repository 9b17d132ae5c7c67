from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import sentencepiece
from tokenizers import Tokenizer

from leptond.checkpoint import Checkpoint
from leptond.errors import InvalidRequest, UnsupportedCapability

CORPUS = """\
The harbour master counted the boats twice, because the first count had a boat too many.
He wrote the number in a book with a green cover and shut it before the ink was dry.
Nobody asked for the book, and nobody would, but counting was what he was there for.
Die Boote lagen still im Wasser, und über dem Hafen kreisten die Möwen.
Les bateaux rentraient au port quand le soleil touchait l'eau.
for boat in harbour: count = count + 1
"""
TEXTS = [
    "The boats",
    " the harbour  counted   twice",
    "über dem Wasser; l'eau, naïve",
    "count = count + 1\n\tfor x in y:",
    "日本 🙂 \x00",
    "",
    " ",
    "▁odd",
    "1234567890",
]


@pytest.fixture(scope="module")
def processor() -> sentencepiece.SentencePieceProcessor:
    """Return a BPE model trained as Llama 2's was: identity normalisation, byte fallback."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def kind_of(processor: sentencepiece.SentencePieceProcessor, token_id: int) -> int:
    flags = {2: processor.IsUnknown, 3: processor.IsControl, 6: processor.IsByte}
    return next((kind for kind, is_kind in flags.items() if is_kind(token_id)), 1)


@pytest.fixture
def open_sentencepiece(open_tiny, processor) -> Callable[..., Checkpoint]:
    ids = range(processor.GetPieceSize())
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": None,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.tokens": [processor.IdToPiece(token_id) for token_id in ids],
        "tokenizer.ggml.scores": [processor.GetScore(token_id) for token_id in ids],
        "tokenizer.ggml.token_type": [kind_of(processor, token_id) for token_id in ids],
        "tokenizer.ggml.bos_token_id": processor.bos_id(),
        "tokenizer.ggml.eos_token_id": processor.eos_id(),
        "tokenizer.ggml.unknown_token_id": processor.unk_id(),
    }

    def opened(**changed: object):
        keys = {f"tokenizer.ggml.{name}": value for name, value in changed.items()}
        return open_tiny(vocab_size=len(ids), metadata={**metadata, **keys})

    return opened


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_sentencepiece(open_sentencepiece, processor, text):
    tokenizer = Tokenizer.from_str(open_sentencepiece().text.tokenizer_json)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == processor.EncodeAsIds(text)


@pytest.mark.parametrize("text", [text for text in TEXTS if "▁" not in text])
def test_text_comes_back(open_sentencepiece, text):
    tokenizer = Tokenizer.from_str(open_sentencepiece().text.tokenizer_json)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text


def test_bos_is_added_unless_the_file_says_otherwise(open_sentencepiece, processor):
    for changed, has_bos in (({}, True), ({"add_bos_token": False}, False)):
        checkpoint = open_sentencepiece(**changed)
        ids = Tokenizer.from_str(checkpoint.text.tokenizer_json).encode("the").ids
        assert (ids[0] == processor.bos_id()) == has_bos
        assert checkpoint.text.generation.add_bos == has_bos


def test_without_a_space_prefix_the_first_word_is_as_it_stands(open_sentencepiece):
    checkpoint = open_sentencepiece(add_space_prefix=False)
    tokenizer = Tokenizer.from_str(checkpoint.text.tokenizer_json)
    encoding = tokenizer.encode("the the", add_special_tokens=False)
    assert encoding.tokens == ["t", "he", "▁the"]
    assert tokenizer.decode(encoding.ids) == "the the"


def test_control_tokens_cannot_be_forged(open_sentencepiece, processor):
    tokenizer = Tokenizer.from_str(open_sentencepiece().text.tokenizer_json)
    assert processor.eos_id() in tokenizer.encode("a</s>").ids
    tokenizer.encode_special_tokens = True
    assert processor.eos_id() not in tokenizer.encode("a</s>").ids


def test_one_score_for_two_unions_is_refused(open_sentencepiece, processor):
    scores = [processor.GetScore(token_id) for token_id in range(processor.GetPieceSize())]
    first = next(
        i for i, score in enumerate(scores) if score == -0.0 and kind_of(processor, i) == 1
    )
    scores[first] = scores[first + 1]
    with pytest.raises(UnsupportedCapability, match=r"tokenizer\.ggml\.scores: .* share the score"):
        open_sentencepiece(scores=scores)


def test_a_score_per_token_is_needed(open_sentencepiece):
    with pytest.raises(InvalidRequest, match=r"tokenizer\.ggml\.scores: 1 scores for"):
        open_sentencepiece(scores=[0.5])
