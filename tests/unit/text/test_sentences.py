# ruff: noqa: RUF001 - look-alikes of other scripts are meant
from __future__ import annotations

import pytest

from leptond.text.sentences import cut_in_two, split_sentences, strip_span


def sentences(text: str, language: str = "") -> list[str]:
    return [text[start:end] for start, end in split_sentences(text, language)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n ", []),
        ("One", ["One"]),
        ("One. Two? Three! Four", ["One.", "Two?", "Three!", "Four"]),
        ("  One.\tTwo.\n", ["One.", "Two."]),
        ("Wait... Then it went on… Done.", ["Wait...", "Then it went on…", "Done."]),
        ("Really?! Yes.", ["Really?!", "Yes."]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("(It rained.) We stayed.", ["(It rained.)", "We stayed."]),
        ("It costs 3.14 or 1.000.000 in all.", ["It costs 3.14 or 1.000.000 in all."]),
        ("See example.com for more.", ["See example.com for more."]),
        ("Mr. Smith met Dr. No. They spoke.", ["Mr. Smith met Dr. No.", "They spoke."]),
        ("J. S. Bach wrote it. Yes.", ["J. S. Bach wrote it.", "Yes."]),
        (
            "Cheese, e.g. Brie, is good. So is bread.",
            ["Cheese, e.g. Brie, is good.", "So is bread."],
        ),
        ("It was approx. five. and so on.", ["It was approx. five. and so on."]),
        ("A title\n\nA paragraph\n \nAnother", ["A title", "A paragraph", "Another"]),
        ("A line\nthat goes on.", ["A line\nthat goes on."]),
        ("你好。我是学生！再见", ["你好。", "我是学生！", "再见"]),
        ("「行こう。」と言った。", ["「行こう。」", "と言った。"]),
        ("यह एक वाक्य है। यह दूसरा है।", ["यह एक वाक्य है।", "यह दूसरा है।"]),
        ("هل أنت بخير؟ نعم.", ["هل أنت بخير؟", "نعم."]),
    ],
)
def test_where_sentences_end(text: str, expected: list[str]):
    assert sentences(text) == expected


def test_a_number_with_a_full_stop_is_an_ordinal_where_they_are_written_so():
    text = "Am 3. Oktober war es. Gut."
    assert sentences(text, "de") == ["Am 3. Oktober war es.", "Gut."]
    assert sentences(text, "en") == ["Am 3.", "Oktober war es.", "Gut."]


def test_a_span_loses_the_white_space_at_its_ends():
    assert strip_span("x  ab c \n", (1, 9)) == (3, 7)
    assert strip_span("   ", (0, 3)) == (3, 3)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("the cat sleeps here, the dog sleeps there", "the cat sleeps here, "),
        ("the cat sleeps the dog runs", "the cat sleeps "),
        ("over 1,000,000 and 1,000,000,000", "over 1,000,000 "),
        ("aaaaaaaa", "aaaa"),
        ("あの猫は寝ている、この犬は走っている", "あの猫は寝ている、"),
        ("ab", "a"),
    ],
)
def test_a_long_sentence_is_cut_after_a_clause_or_between_words(text: str, first: str):
    assert text[: cut_in_two(text)] == first


def test_one_character_is_not_cut():
    with pytest.raises(ValueError, match="one character"):
        cut_in_two("a")
