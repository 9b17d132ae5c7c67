"""The state of a chat, and the commands that change it. No terminal, no network."""

from __future__ import annotations

from dataclasses import dataclass, field

from leptond_client.values import Message

__all__ = ["HELP", "Command", "Conversation", "parse"]

HELP = """\
/help           this
/reset          forget the conversation
/system [TEXT]  set the system prompt, or remove it; forgets the conversation
/model [NAME]   take another model, or list them
/quit           leave (or Ctrl-D)
\"\"\"             begins and ends a text of several lines; so does \\ at the end of a line
Ctrl-C          stops an answer; at the prompt, twice, it leaves"""

_COMMANDS = frozenset({"help", "reset", "system", "model", "quit"})


@dataclass(frozen=True, slots=True)
class Command:
    """A line that begins with a slash."""

    name: str
    argument: str

    @property
    def is_known(self) -> bool:
        """Whether there is such a command."""
        return self.name in _COMMANDS


def parse(line: str) -> Command | str:
    """A command, or what is to be said to the model."""
    if not line.startswith("/"):
        return line
    name, _, argument = line[1:].partition(" ")
    return Command(name, argument.strip())


@dataclass(slots=True)
class Conversation:
    """What has been said."""

    system: str = ""
    turns: list[Message] = field(default_factory=list)

    def ask(self, text: str) -> list[Message]:
        """The messages to send for the user's next one."""
        opening = [Message("system", self.system)] if self.system else []
        return [*opening, *self.turns, Message("user", text)]

    def keep(self, text: str, answer: str) -> None:
        """Remember a question with its answer; one without an answer is forgotten."""
        if answer:
            self.turns += [Message("user", text), Message("assistant", answer)]

    def reset(self, system: str | None = None) -> None:
        """Forget what was said; with a system prompt, take that one."""
        self.turns.clear()
        if system is not None:
            self.system = system
