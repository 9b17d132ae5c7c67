"""Streamed text is the whole text, whatever the tokens and however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptond.text import Detokenizer, StopMatcher
from tests.unit.text.tiny import (
    byte_level_tokenizer,
    sentencepiece_tokenizer,
    word_piece_tokenizer,
)

TOKENIZERS = {
    "byte-level": byte_level_tokenizer(),
    "sentencepiece": sentencepiece_tokenizer(),
    "word-piece": word_piece_tokenizer(),
}


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())
@given(data=st.data(), skip_special=st.booleans())
def test_deltas_are_the_decoded_whole(tokenizer, data, skip_special):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    detokenizer = Detokenizer(tokenizer, skip_special=skip_special)
    deltas = [detokenizer.push(token_id) for token_id in ids]
    deltas.append(detokenizer.flush())
    assert "".join(deltas) == tokenizer.decode(ids, skip_special=skip_special)


@pytest.mark.parametrize("name", ["byte-level", "sentencepiece"])
@given(text=st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("hei lo"))))
def test_any_text_survives_tokens(name, text):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text, parse_special=False, add_bos=False)
    detokenizer = Detokenizer(tokenizer)
    assert "".join(map(detokenizer.push, ids)) + detokenizer.flush() == text
    assert tokenizer.decode(ids, skip_special=False) == text


def first_match(text: str, strings: list[str]) -> tuple[str, str | None]:
    """What the text keeps, and the string that is complete first, the longest of several."""
    for end in range(len(text) + 1):
        matches = [string for string in strings if text[:end].endswith(string)]
        if matches:
            longest = max(matches, key=len)
            return text[: end - len(longest)], longest
    return text, None


pieces_of_few_letters = st.lists(st.text("abc", max_size=4), max_size=12)
stop_strings = st.lists(st.text("abc", min_size=1, max_size=5), max_size=4)


@given(pieces=pieces_of_few_letters, strings=stop_strings)
def test_stop_strings_are_found_as_by_looking_at_the_whole(pieces, strings):
    matcher = StopMatcher(strings)
    left, matched = "", None
    for piece in pieces:
        text, matched = matcher.push(piece)
        left += text
        if matched is not None:
            break
    else:
        left += matcher.flush()
    assert (left, matched) == first_match("".join(pieces), strings)


@given(pieces=pieces_of_few_letters, strings=stop_strings)
def test_only_what_may_become_a_stop_string_is_held_back(pieces, strings):
    matcher = StopMatcher(strings)
    left = whole = ""
    for piece in pieces:
        text, matched = matcher.push(piece)
        left, whole = left + text, whole + piece
        if matched is not None:
            return
        held = whole.removeprefix(left)
        beginnings = {string[:length] for string in strings for length in range(1, len(string))}
        longest = max((b for b in beginnings if whole.endswith(b)), key=len, default="")
        assert held == longest
