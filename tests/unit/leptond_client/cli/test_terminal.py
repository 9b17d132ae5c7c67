"""What is written to a terminal, and what is not."""

from __future__ import annotations

import pytest

from leptond_client import FinishReason, Generation, Timing, Usage
from leptond_client.cli.terminal import Answer, note, one_line, printable, summary

CONTROLS = [chr(code) for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))]


def test_no_control_character_but_line_breaks_and_tabs_is_printable():
    shown = printable("".join(CONTROLS))
    assert {character for character in shown if character in CONTROLS} == {"\n", "\t"}


def test_ordinary_text_stays_as_it_is():
    text = "Grüße, 世界 🌍 \u05e9\u05dc\u05d5\u05dd\n\ttab"
    assert printable(text) == text


def test_one_line_is_one_line():
    assert one_line(" a\r\n b\x1b[2J\t c ") == "a b␛[2J c"


@pytest.mark.parametrize(("is_terminal", "written"), [(True, "a␛[2Jb\n"), (False, "a\x1b[2Jb\n")])
def test_only_a_terminal_is_protected(monkeypatch, capsys, is_terminal, written):
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    answer = Answer()
    for piece in ("a", "", "\x1b[2Jb"):
        answer.write(piece)
    answer.end()
    assert capsys.readouterr().out == written
    assert answer.text == "a\x1b[2Jb"


@pytest.mark.parametrize(("pieces", "written"), [([], ""), (["a\n"], "a\n"), (["a", ""], "a\n")])
def test_the_last_line_is_ended_once(capsys, pieces, written):
    answer = Answer()
    for piece in pieces:
        answer.write(piece)
    answer.end()
    assert capsys.readouterr().out == written


def test_notes_are_for_people(monkeypatch, capsys):
    note("in a pipe")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    note("on a\nterminal")
    assert "on a terminal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tokens", "decode_ms", "reason", "said"),
    [
        (11, 500.0, "stop", "11 tokens · 20.0 tokens/s · first token after 0.25 s"),
        (1, 0.0, "stop", "1 token · first token after 0.25 s"),
        (1, 0.0, "length", "1 token · first token after 0.25 s · cut at --max-tokens"),
    ],
)
def test_a_summary_says_what_an_answer_cost(tokens, decode_ms, reason, said):
    result = Generation(
        text="",
        token_ids=(),
        finish_reason=FinishReason(reason),
        usage=Usage(completion_tokens=tokens),
        timing=Timing(first_token_ms=250.0, decode_ms=decode_ms),
    )
    assert summary(result) == said
