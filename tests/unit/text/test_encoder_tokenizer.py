from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, processors

from leptond.checkpoint.encoder_defaults import (
    EncoderDefaults,
    Seq2SeqDefaults,
    write_encoder_defaults,
)
from leptond.errors import InvalidRequest, ModelFailed, RequestTooLarge
from leptond.text import Encoded, EncoderTokenizer
from leptond.text.encoder_tokenizer import Side

CLS, SEP, A, B, C = 2, 3, 4, 5, 6
DEFAULTS = EncoderDefaults(
    architecture="bert", max_tokens=16, num_special_single=2, dimensions=8, pooling="mean"
)


def engine() -> Engine:
    """Words a, b and c, and BERT's frame; truncation and padding that must not be obeyed."""
    vocab = {"[PAD]": 0, "[UNK]": 1, "[CLS]": CLS, "[SEP]": SEP, "a": A, "b": B, "c": C}
    made = Engine(models.WordLevel(vocab, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    made.enable_truncation(4)
    made.enable_padding(length=12)
    return made


@pytest.fixture
def tokenizer() -> EncoderTokenizer:
    return EncoderTokenizer(engine().to_str(), DEFAULTS)


def test_a_text_gets_its_special_tokens_and_no_padding(tokenizer: EncoderTokenizer):
    encoded = tokenizer.encode(["a b c a b", "c", ""], max_tokens=16, truncate=None)
    assert encoded == [
        Encoded((CLS, A, B, C, A, B, SEP), (0,) * 7, 0),
        Encoded((CLS, C, SEP), (0, 0, 0), 0),
        Encoded((CLS, SEP), (0, 0), 0),
    ]


def test_pairs_and_texts_may_be_mixed_and_keep_their_order(tokenizer: EncoderTokenizer):
    encoded = tokenizer.encode([("a", "b c"), "c", ("", "a")], max_tokens=16, truncate=None)
    assert encoded == [
        Encoded((CLS, A, SEP, B, C, SEP), (0, 0, 0, 1, 1, 1), 0),
        Encoded((CLS, C, SEP), (0, 0, 0), 0),
        Encoded((CLS, SEP, A, SEP), (0, 0, 1, 1), 0),
    ]


def test_no_texts_are_no_work(tokenizer: EncoderTokenizer):
    assert tokenizer.encode([], max_tokens=16, truncate=None) == []


def test_a_prompt_goes_in_front_of_each_text_and_of_a_pairs_first(tokenizer: EncoderTokenizer):
    encoded = tokenizer.encode(["b", ("b", "a")], max_tokens=16, truncate=None, prompt="c ")
    assert encoded[0].token_ids == (CLS, C, B, SEP)
    assert encoded[1].token_ids == (CLS, C, B, SEP, A, SEP)


@pytest.mark.parametrize(("side", "kept"), [("right", (A, B)), ("left", (C, A))])
def test_the_side_that_is_cut_and_how_much_of_it(
    tokenizer: EncoderTokenizer, side: Side, kept: tuple[int, ...]
):
    (encoded,) = tokenizer.encode(["a b c c a"], max_tokens=4, truncate=side)
    assert encoded == Encoded((CLS, *kept, SEP), (0,) * 4, 3)


def test_a_text_that_just_fits_is_not_cut(tokenizer: EncoderTokenizer):
    sides: tuple[Side | None, ...] = (None, "left", "right")
    for truncate in sides:
        (encoded,) = tokenizer.encode(["a b"], max_tokens=4, truncate=truncate)
        assert encoded.num_truncated == 0


def test_a_text_that_is_too_long_is_refused_by_its_place(tokenizer: EncoderTokenizer):
    with pytest.raises(RequestTooLarge, match=r"texts\[1\] has 5 tokens; at most 4 fit") as caught:
        tokenizer.encode(["a", "a b c"], max_tokens=4, truncate=None)
    assert caught.value.field == "texts[1]"


def test_no_room_for_text_is_refused(tokenizer: EncoderTokenizer):
    tokenizer.encode(["a"], max_tokens=3, truncate="right")
    cases: list[tuple[str | tuple[str, str], int]] = [("a", 2), (("a", "b"), 3)]
    for text, max_tokens in cases:
        with pytest.raises(InvalidRequest, match="leave no room"):
            tokenizer.encode([text], max_tokens=max_tokens, truncate="right")


@given(st.integers(0, 9), st.integers(0, 9), st.integers(6, 18), st.sampled_from(["left", "right"]))
def test_pairs_are_cut_as_the_tokenizers_library_cuts_them(
    num_first: int, num_second: int, max_tokens: int, side: Side
):
    first, second = "a " * num_first, "b " * num_second
    reference = engine()
    reference.no_padding()
    reference.enable_truncation(max_tokens, strategy="longest_first", direction=side)
    expected = reference.encode(first, second)
    (encoded,) = EncoderTokenizer(engine().to_str(), DEFAULTS).encode(
        [(first, second)], max_tokens=max_tokens, truncate=side
    )
    assert encoded.token_ids == tuple(expected.ids)
    assert encoded.token_type_ids == tuple(expected.type_ids)
    assert encoded.num_truncated == max(0, num_first + num_second + 3 - max_tokens)


def test_a_lone_surrogate_is_refused_by_its_place(tokenizer: EncoderTokenizer):
    cases: list[list[str | tuple[str, str]]] = [["a", "a\ud800"], ["a", ("a", "\ud800")]]
    for texts in cases:
        with pytest.raises(InvalidRequest, match=r"texts\[1\] holds U\+D800") as caught:
            tokenizer.encode(texts, max_tokens=9, truncate=None)
        assert caught.value.field == "texts[1]"


def test_a_model_directory_is_read(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text(engine().to_str())
    write_encoder_defaults(DEFAULTS, tmp_path)
    tokenizer = EncoderTokenizer.load(tmp_path)
    assert tokenizer.defaults == DEFAULTS
    assert tokenizer.encode(["a"], max_tokens=4, truncate=None)[0].token_ids == (CLS, A, SEP)


def test_a_missing_or_damaged_file_is_a_failed_model(tmp_path: Path):
    with pytest.raises(ModelFailed, match=r"encoder\.json"):
        EncoderTokenizer.load(tmp_path)
    write_encoder_defaults(DEFAULTS, tmp_path)
    with pytest.raises(ModelFailed, match=r"tokenizer\.json"):
        EncoderTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelFailed, match=r"tokenizer\.json"):
        EncoderTokenizer.load(tmp_path)


def seq2seq(unknown_id: int | None) -> EncoderTokenizer:
    """The same tokenizer for a model that lacks its last word, c."""
    defaults = Seq2SeqDefaults(
        architecture="marian", max_tokens=16, num_special_single=2, vocab_size=C,
        decoder_start_token_id=0, eos_token_id=SEP, pad_token_id=0, unknown_token_id=unknown_id,
        max_target_tokens=16,
    )  # fmt: skip
    made = engine()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return EncoderTokenizer(made.to_str(), defaults)


def test_a_piece_that_the_model_lacks_is_unknown():
    encoded = seq2seq(1).encode(["a c b"], max_tokens=16, truncate=None)
    assert encoded[0].token_ids == (CLS, A, 1, B, SEP)


def test_special_tokens_are_left_out_on_request():
    encoded = seq2seq(1).encode(["a b"], max_tokens=2, truncate=None, add_special=False)
    assert encoded[0].token_ids == (A, B)


def test_special_tokens_in_a_text_are_what_they_name_or_unknown():
    made = seq2seq(1)
    (parsed,) = made.encode(["a [SEP] b"], max_tokens=16, truncate=None)
    (plain,) = made.encode(["a [SEP] b"], max_tokens=16, truncate=None, parse_special=False)
    assert parsed.token_ids == (CLS, A, SEP, B, SEP)
    assert plain.token_ids == (CLS, A, 1, B, SEP)


def test_a_special_token_that_plain_text_would_become_is_refused():
    with pytest.raises(InvalidRequest, match=r"texts\[1\] holds '\[SEP\]'"):
        seq2seq(None).encode(["a", "[SEP]"], max_tokens=16, truncate=None, parse_special=False)


def test_tokens_are_found_by_their_text_and_made_into_text():
    made = seq2seq(1)
    assert made.token_id("[SEP]") == SEP
    with pytest.raises(ModelFailed, match="'zz' is missing"):
        made.token_id("zz")
    assert made.decode([CLS, A, B, SEP]) == "a b"
    assert made.decode([CLS, A], skip_special=False) == "[CLS] a"
