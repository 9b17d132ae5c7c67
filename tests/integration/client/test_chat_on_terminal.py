"""What a conversation does with what is typed, in this process."""

from __future__ import annotations

import grpc
import pytest

from leptond_client.cli.chat import Chat
from leptond_client.cli.conversation import Conversation
from leptond_client.cli.failures import Interrupted
from leptond_client.cli.session import Session
from tests.integration.client.scripted import GENERATIVE, lists, model, refuse, streams


class Typed:
    """Plays a user: texts, and exceptions for keys that raise them; then Ctrl-D."""

    def __init__(self, *entries: str | type[BaseException]) -> None:
        self._entries = iter(entries)

    def __call__(self) -> str:
        entry = next(self._entries, EOFError)
        if isinstance(entry, str):
            return entry
        raise entry


@pytest.fixture
def state():
    return Conversation("Be polite.")


@pytest.fixture
def chat(daemon, state):
    session = Session(daemon.address, None, None)
    yield Chat(session, "toy", state, {"max_tokens": 3})
    session.close()


def said(request):
    return [message.content[0].text for message in request.input.messages]


def test_the_conversation_grows(daemon, chat, capsys):
    daemon.behaviours["ChatStream"] = streams("Good ", "day.")
    chat.converse(Typed("Hello", "", "And you?"))
    first, second = daemon.requests("ChatStream")
    assert said(first) == ["Be polite.", "Hello"]
    assert said(second) == ["Be polite.", "Hello", "Good day.", "And you?"]
    assert first.sampling.max_tokens == 3
    assert capsys.readouterr().out == "Good day.\nGood day.\n"


def test_reset_and_system_begin_anew(daemon, chat, state):
    daemon.behaviours["ChatStream"] = streams("yes")
    chat.converse(Typed("one", "/reset", "two", "/system Be brief.", "three", "/system", "four"))
    assert list(map(said, daemon.requests("ChatStream"))) == [
        ["Be polite.", "one"],
        ["Be polite.", "two"],
        ["Be brief.", "three"],
        ["four"],
    ]


def test_another_model_can_be_taken(daemon, chat, capsys):
    daemon.behaviours["ListModels"] = lists(model("toy", *GENERATIVE), model("b", *GENERATIVE))
    daemon.behaviours["ChatStream"] = streams("yes")
    chat.converse(Typed("/model", "/model b", "Hello"))
    assert capsys.readouterr().err.splitlines()[:2] == ["* toy", "  b"]
    assert daemon.requests("ListModels")[1].model == "b"
    assert daemon.requests("ChatStream")[0].model == "b"


def test_a_model_that_is_not_there_is_not_taken(daemon, chat, capsys):
    daemon.behaviours["ListModels"] = lambda request, context: refuse(
        context, grpc.StatusCode.NOT_FOUND, "no model 'b'"
    )
    daemon.behaviours["ChatStream"] = streams("yes")
    chat.converse(Typed("/model b", "Hello"))
    assert "lepton: no model 'b'" in capsys.readouterr().err
    assert daemon.requests("ChatStream")[0].model == "toy"


def test_help_and_unknown_commands(chat, capsys):
    chat.converse(Typed("/help", "/frobnicate now"))
    err = capsys.readouterr().err
    assert "/reset" in err
    assert "there is no /frobnicate; see /help" in err


def test_quit_leaves(daemon, chat):
    chat.converse(Typed("/quit", "never sent"))
    assert daemon.calls == []


def test_ctrl_c_at_the_prompt_leaves_when_it_comes_twice(chat, capsys):
    with pytest.raises(Interrupted):
        chat.converse(Typed("/help", KeyboardInterrupt, KeyboardInterrupt))
    assert "Ctrl-C again" in capsys.readouterr().err


def test_one_ctrl_c_at_the_prompt_does_not_leave(daemon, chat):
    daemon.behaviours["ChatStream"] = streams("yes")
    chat.converse(Typed(KeyboardInterrupt, "Hello", KeyboardInterrupt, "Again"))
    assert len(daemon.requests("ChatStream")) == 2


def test_typing_what_is_not_utf_8_is_said(daemon, chat, capsys):
    class Undecodable(UnicodeDecodeError):
        def __init__(self):
            super().__init__("utf-8", b"\xff", 0, 1, "invalid start byte")

    chat.converse(Typed(Undecodable))
    assert "that was not valid UTF-8" in capsys.readouterr().err


def test_text_that_no_message_can_hold_does_not_end_the_chat(daemon, chat, state, capsys):
    daemon.behaviours["ChatStream"] = streams("yes")
    chat.converse(Typed("\udcff", "Hello"))
    assert "is not text that UTF-8 can hold" in capsys.readouterr().err
    assert [message.content for message in state.turns] == ["Hello", "yes"]
