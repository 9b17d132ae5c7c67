"""Whatever the text, nothing of it is lost between its sentences."""

# ruff: noqa: RUF001 - marks of other scripts are meant
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from leptond.text.sentences import cut_in_two, split_sentences

TEXTS = st.text(
    st.one_of(st.sampled_from("aB1. !?\n\t\"')(,;。、！「」…\u2028\u00a0"), st.characters())
)


@given(TEXTS, st.sampled_from(["", "en", "de", "zh"]))
def test_between_sentences_is_white_space_only(text: str, language: str):
    place = 0
    for start, end in split_sentences(text, language):
        assert text[place:start].strip() == ""
        assert text[start:end] == text[start:end].strip() != ""
        place = end
    assert text[place:].strip() == ""


@given(TEXTS.filter(lambda text: len(text) > 1))
def test_a_cut_leaves_something_on_both_sides(text: str):
    assert 0 < cut_in_two(text) < len(text)
