"""Text leaves the detokenizer in whole characters."""

from __future__ import annotations

import pytest

from leptond.text import Detokenizer
from tests.unit.text.tiny import IDS, byte_level_tokenizer, sentencepiece_tokenizer

TOKENIZER = byte_level_tokenizer()


def deltas(detokenizer, ids):
    return [detokenizer.push(token_id) for token_id in ids]


def test_a_character_waits_for_its_last_byte():
    detokenizer = Detokenizer(TOKENIZER)
    assert deltas(detokenizer, [ord("a"), *"é😀".encode()]) == ["a", "", "é", "", "", "", "😀"]
    assert detokenizer.flush() == ""


def test_a_character_that_is_never_completed_becomes_a_replacement():
    detokenizer = Detokenizer(TOKENIZER)
    assert deltas(detokenizer, [0xC3, ord("a"), 0xF0, 0x9F]) == ["", "\ufffda", "", ""]
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.flush() == ""


def test_control_tokens_give_no_text_and_do_not_end_a_character():
    ids = [0xC3, IDS["<|im_end|>"], 0xA9]
    assert deltas(Detokenizer(TOKENIZER), ids) == ["", "", "é"]
    assert deltas(Detokenizer(TOKENIZER, skip_special=False), ids) == [
        "",
        "\ufffd<|im_end|>",
        "\ufffd",
    ]
    assert Detokenizer(TOKENIZER).push(IDS["<think>"]) == "<think>"


def test_a_token_means_the_same_before_and_after_it_was_seen():
    for _ in range(2):
        assert deltas(Detokenizer(TOKENIZER), [0xA9, 258, 0xC3, 0xA9]) == [
            "\ufffd",
            "hell",
            "",
            "é",
        ]


def test_padding_of_the_model_gives_no_text():
    assert Detokenizer(TOKENIZER).push(10**6) == ""


@pytest.mark.parametrize(
    ("continues", "expected"), [(False, ["", "hi", " hi"]), (True, ["", " hi", " hi"])]
)
def test_the_first_space_of_a_sentencepiece_text_is_dropped_unless_it_goes_on(continues, expected):
    detokenizer = Detokenizer(sentencepiece_tokenizer(), continues_text=continues)
    assert deltas(detokenizer, [1, 263, 263]) == expected


def test_only_the_first_space_is_dropped():
    detokenizer = Detokenizer(sentencepiece_tokenizer())
    assert deltas(detokenizer, [259, 259, 263]) == ["", " ", " hi"]
