"""Stop strings are found across pieces; only what may become one is held back."""

from __future__ import annotations

import pytest

from leptond.errors import InvalidRequest
from leptond.text import StopMatcher


def test_without_stop_strings_text_passes_through():
    matcher = StopMatcher([])
    assert matcher.push("abc") == ("abc", None)
    assert matcher.flush() == ""


def test_a_string_is_found_across_pieces_and_cut_off():
    matcher = StopMatcher(["END"])
    assert matcher.push("textE") == ("text", None)
    assert matcher.push("N") == ("", None)
    assert matcher.push("Dmore") == ("", "END")


def test_what_turns_out_not_to_be_one_leaves():
    matcher = StopMatcher(["END"])
    assert matcher.push("aEN") == ("a", None)
    assert matcher.push("ENx") == ("ENENx", None)
    assert matcher.push("E") == ("", None)
    assert matcher.flush() == "E"
    assert matcher.push("ND") == ("ND", None)


def test_the_match_that_is_complete_first_wins():
    assert StopMatcher(["abcd", "bc"]).push("xabcd") == ("xa", "bc")
    assert StopMatcher(["bc", "abc"]).push("xabc") == ("x", "abc")
    assert StopMatcher(["abc", "bc", "c"]).push("bbc") == ("b", "bc")


def test_a_string_that_contains_itself_is_held_to_its_longest_beginning():
    matcher = StopMatcher(["aab"])
    assert matcher.push("aaa") == ("a", None)
    assert matcher.push("b") == ("", "aab")


def test_a_matcher_starts_anew_after_a_match():
    matcher = StopMatcher(["ab"])
    assert matcher.push("a") == ("", None)
    assert matcher.push("b") == ("", "ab")
    assert matcher.push("b") == ("b", None)


def test_an_empty_string_is_refused():
    with pytest.raises(InvalidRequest, match="a stop string is empty"):
        StopMatcher(["a", ""])
