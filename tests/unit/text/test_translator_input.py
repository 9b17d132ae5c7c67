"""How a translator is told its languages, on word-level tokenizers made here."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, processors

from leptond.checkpoint import EncoderDefaults, LanguageStyle, Seq2SeqDefaults
from leptond.errors import InvalidRequest, RequestTooLarge, UnsupportedCapability
from leptond.text import EncoderTokenizer
from leptond.text.translator_input import TranslatorInput, known_languages

EOS, UNK, EN, DE, FR, A, B = 0, 1, 2, 3, 4, 5, 6
LANGUAGES = {"eng": "eng", "deu": "deu", "fra": "fra"}
VOCAB = {"</s>": EOS, "<unk>": UNK, "eng": EN, "deu": DE, "fra": FR, "a": A, "b": B}


def encoder(*, frame: str = "$A </s>", **fields: Any) -> EncoderTokenizer:
    made = Engine(models.WordLevel(VOCAB, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["</s>", "<unk>", "eng", "deu", "fra"])
    special = [(token, VOCAB[token]) for token in ("</s>", "eng")]
    made.post_processor = processors.TemplateProcessing(single=frame, special_tokens=special)
    values: dict[str, Any] = {
        "architecture": "marian",
        "max_tokens": 16,
        "num_special_single": 1,
        "vocab_size": 7,
        "decoder_start_token_id": EOS,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
        "unknown_token_id": UNK,
        "max_target_tokens": 16,
    }
    return EncoderTokenizer(made.to_str(), Seq2SeqDefaults(**values | fields))


def way(made: EncoderTokenizer, source: str = "", target: str = "", most: int = 99):
    return TranslatorInput(made, "tiny", source, target, most)


def test_a_model_of_one_pair_is_told_nothing():
    plain = way(encoder(source_language="eng", target_language="deu"))
    assert plain.encode(["a b"]) == [(A, B, EOS)]
    assert (plain.source, plain.target, plain.answer_prefix) == ("eng", "deu", ())


def test_a_model_that_names_no_language_is_asked_for_none():
    made = encoder()
    assert (way(made).source, way(made).target) == ("", "")
    with pytest.raises(InvalidRequest, match="leave it unset"):
        way(made, "en")


def test_a_target_may_stand_in_front_of_the_source():
    made = encoder(
        language_style=LanguageStyle.TARGET_IN_SOURCE, languages=LANGUAGES, source_language="eng"
    )
    one = way(made, target="de")
    assert one.encode(["a"]) == [(DE, A, EOS)]
    assert one.answer_prefix == ()
    with pytest.raises(InvalidRequest, match="deu, eng, fra") as refused:
        way(made)
    assert refused.value.field == "target_language"


def test_a_source_may_frame_its_text_and_the_target_begin_the_answer():
    made = encoder(
        frame="eng $A </s>", language_style=LanguageStyle.SOURCE_AND_TARGET, languages=LANGUAGES
    )
    one = way(made, "fr", "de")
    assert one.encode(["a", "b"]) == [(FR, A, EOS), (FR, B, EOS)]
    assert one.answer_prefix == (DE,)


def test_a_language_in_a_text_is_no_language_token():
    made = encoder(
        frame="eng $A </s>", language_style=LanguageStyle.SOURCE_AND_TARGET, languages=LANGUAGES
    )
    assert way(made, "fr", "de").encode(["a eng </s>"]) == [(FR, A, UNK, UNK, EOS)]


def test_prompts_name_pairs():
    prompts = {"translation_en_to_de": "a ", "translation_en_to_fr": "b ", "summarization": "a "}
    made = encoder(prompts=prompts)
    assert way(made, target="fra").encode(["b"]) == [(B, B, EOS)]
    with pytest.raises(InvalidRequest, match="target_language is not set; model tiny has de, fr"):
        way(made, "en")
    with pytest.raises(InvalidRequest, match=r"has en$"):
        way(made, "de", "en")


@pytest.mark.parametrize(
    ("fields", "sources", "targets"),
    [
        ({}, [], []),
        ({"source_language": "eng", "target_language": "deu"}, ["eng"], ["deu"]),
        (
            {"language_style": LanguageStyle.TARGET_IN_SOURCE, "languages": LANGUAGES},
            [],
            ["deu", "eng", "fra"],
        ),
        (
            {"language_style": LanguageStyle.SOURCE_AND_TARGET, "languages": LANGUAGES},
            ["deu", "eng", "fra"],
            ["deu", "eng", "fra"],
        ),
        ({"prompts": {"translation_en_to_de": "a"}}, ["en"], ["de"]),
    ],
)
def test_what_a_model_says_of_its_languages(
    fields: dict[str, Any], sources: list[str], targets: list[str]
):
    defaults = encoder(**fields).defaults
    assert isinstance(defaults, Seq2SeqDefaults)
    assert known_languages(defaults) == (sources, targets)


def test_a_model_without_a_decoder_does_not_translate():
    defaults = EncoderDefaults(
        architecture="bert", max_tokens=16, num_special_single=1, dimensions=8, pooling="mean"
    )
    with pytest.raises(UnsupportedCapability, match="does not translate"):
        way(EncoderTokenizer(Engine(models.WordLevel(VOCAB, unk_token="<unk>")).to_str(), defaults))


@pytest.mark.parametrize("most", [2, 3, 5])
def test_a_sentence_is_cut_until_its_parts_fit(most: int):
    one = way(encoder(), most=most)
    text = " ".join("ab" * 20)
    spans = one.split(f" {text}. a", always=False)
    parts = [f" {text}. a"[start:end] for start, end in spans]
    assert " ".join(parts) == f"{text}. a"
    assert all(len(ids) <= most for ids in one.encode(parts))


def test_a_text_that_fits_is_split_only_when_it_must_be():
    one = way(encoder())
    assert one.split(" a. B ", always=False) == [(1, 5)]
    assert one.split(" a. B ", always=True) == [(1, 3), (4, 5)]


def test_no_room_for_any_text_is_an_error():
    with pytest.raises(RequestTooLarge):
        way(encoder(prompts={"translation_en_to_de": "a b a b a "}), most=4).split(
            "a b", always=False
        )


def test_sentences_are_joined_as_the_target_is_written():
    assert way(encoder(source_language="zho", target_language="eng")).joint == " "
    assert way(encoder(source_language="eng", target_language="zho_Hans")).joint == ""
