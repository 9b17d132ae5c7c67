"""What is typed into a chat."""

from __future__ import annotations

import pytest

from leptond_client import Message
from leptond_client.cli.conversation import HELP, Command, Conversation, parse
from leptond_client.cli.prompting import Prompter, history_path


def typed(*lines):
    """A Prompter that reads these lines, and the prompts that it showed."""
    left, prompts = iter(lines), []

    def read_line(prompt):
        prompts.append(prompt)
        line = next(left, None)
        if line is None:
            raise EOFError
        return line

    return Prompter(read_line), prompts


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("hello", "hello"),
        ("", ""),
        ("a /quit inside", "a /quit inside"),
        ("/quit", Command("quit", "")),
        ("/system  Be brief. ", Command("system", "Be brief.")),
        ("/etc/passwd", Command("etc/passwd", "")),
    ],
)
def test_a_slash_begins_a_command(line, parsed):
    assert parse(line) == parsed


def test_help_names_every_command():
    for name in ("help", "reset", "system", "model", "quit"):
        assert Command(name, "").is_known
        assert f"/{name}" in HELP
    assert not Command("etc/passwd", "").is_known


def test_a_question_without_an_answer_is_forgotten():
    state = Conversation("Be polite.")
    state.keep("one", "")
    state.keep("two", "2")
    assert state.ask("three") == [
        Message("system", "Be polite."),
        Message("user", "two"),
        Message("assistant", "2"),
        Message("user", "three"),
    ]
    state.reset()
    assert state.ask("four") == [Message("system", "Be polite."), Message("user", "four")]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["one"], "one"),
        (["  padded  "], "padded"),
        (["one\\", "two\\", "three"], "one\ntwo\nthree"),
        (['"""one', "", '  two"""'], "one\n\n  two"),
        (['"""', "one", '"""'], "one"),
        (['"""one"""'], "one"),
        (['"""ends \\', 'so"""'], "ends \\\nso"),
    ],
)
def test_a_text_can_have_several_lines(lines, text):
    prompter, prompts = typed(*lines)
    assert prompter.read() == text
    assert prompts == ["> ", *["… "] * (len(lines) - 1)]


def test_the_end_of_the_input_is_told():
    prompter, _ = typed()
    with pytest.raises(EOFError):
        prompter.read()


def test_the_history_is_where_state_belongs(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_path() == tmp_path / "lepton" / "history"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history_path() == tmp_path / ".local" / "state" / "lepton" / "history"
