"""`lepton chat`: a conversation on the terminal, or one question in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from leptond_client.cli import conversation
from leptond_client.cli.failures import Interrupted, describe
from leptond_client.cli.generating import as_json_object, show
from leptond_client.cli.options import (
    TEXT,
    json_option,
    model_option,
    piped_text,
    sampling_options,
)
from leptond_client.cli.prompting import Prompter, history, history_path
from leptond_client.cli.session import Session
from leptond_client.cli.terminal import Answer, note, one_line, print_json, summary
from leptond_client.errors import LeptonError

__all__ = ["Chat", "chat"]


@click.command()
@click.argument("message", type=TEXT, required=False)
@model_option
@click.option("--system", type=TEXT, default="", help="The system prompt.")
@sampling_options
@json_option
@click.pass_obj
def chat(
    session: Session,
    /,
    message: str | None,
    model: str | None,
    system: str,
    *,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Converse with a model, or answer MESSAGE or standard input and end.

    A conversation takes place where both standard input and output are a terminal; /help there
    says what can be typed. Ctrl-C stops an answer and not the chat.
    """
    is_conversation = message is None and not as_json
    if is_conversation and sys.stdin.isatty() and sys.stdout.isatty():
        name = session.model(model, "chat")
        talk = Chat(session, name, conversation.Conversation(system), sampling)
        with history(history_path()):
            talk.converse(Prompter().read)
        return
    text = piped_text("message") if message is None else message
    name = session.model(model, "chat")
    messages = conversation.Conversation(system).ask(text)
    if as_json:
        print_json(as_json_object(session.client.chat(name, messages, **sampling)))
    else:
        stream = session.client.chat_stream(name, messages, **sampling)
        note(summary(show(stream, Answer())))


class Chat:
    """A conversation on the terminal."""

    def __init__(
        self,
        session: Session,
        model: str,
        state: conversation.Conversation,
        sampling: dict[str, Any],
    ) -> None:
        self._session = session
        self._model = model
        self._state = state
        self._sampling = sampling

    def converse(self, read: Callable[[], str]) -> None:
        """Answer what `read` brings until the user leaves.

        Raises:
            Interrupted: by two Ctrl-C after each other at the prompt.
        """
        note(f"{self._model} at {self._session.address}. /help says what can be typed.")
        while (text := _next(read)) is not None:
            if self._react(text):
                return

    def _react(self, text: str) -> bool:
        """Do what was typed; True when that was to leave."""
        try:
            match conversation.parse(text):
                case conversation.Command() as command:
                    return self._obey(command)
                case "":
                    pass
                case said:
                    self._answer(said)
        except LeptonError as error:
            click.echo(f"lepton: {describe(error, self._session.address)}", err=True)
        except KeyboardInterrupt:
            note("stopped")
        return False

    def _answer(self, text: str) -> None:
        """Ask the model; what came of an answer is remembered, even if it was stopped."""
        messages = self._state.ask(text)
        answer = Answer()
        try:
            stream = self._session.client.chat_stream(self._model, messages, **self._sampling)
            result = show(stream, answer)
        finally:
            self._state.keep(text, answer.text)
        note(summary(result))

    def _obey(self, command: conversation.Command) -> bool:
        if not command.is_known:
            click.echo(f"there is no /{one_line(command.name)}; see /help", err=True)
        elif command.name == "quit":
            return True
        elif command.name == "help":
            click.echo(conversation.HELP, err=True)
        elif command.name == "model":
            self._take_model(command.argument)
        else:
            system = command.argument if command.name == "system" else None
            self._state.reset(system)
            note("the conversation begins anew")
        return False

    def _take_model(self, name: str) -> None:
        found = self._session.client.models(name)
        if name:
            self._model = name
            note(f"{name} answers from now on")
            return
        for model in found:
            mark = "*" if model.name == self._model else " "
            click.echo(f"{mark} {one_line(model.name)}", err=True)


def _next(read: Callable[[], str]) -> str | None:
    """The next text, or None when the user leaves with Ctrl-D.

    Raises:
        Interrupted: two Ctrl-C after each other.
    """
    was_interrupted = False
    while True:
        try:
            return read()
        except EOFError:
            click.echo(err=True)
            return None
        except UnicodeDecodeError:
            click.echo("lepton: that was not valid UTF-8", err=True)
        except KeyboardInterrupt:
            if was_interrupted:
                raise Interrupted("interrupted") from None
            was_interrupted = True
            click.echo("\nCtrl-C again, or Ctrl-D, leaves", err=True)
