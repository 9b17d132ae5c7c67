"""The options and arguments that several commands take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = [
    "TEXT",
    "json_option",
    "model_option",
    "parse_special_option",
    "piped_text",
    "sampling_options",
    "text_options",
    "truncation_options",
]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


class _Text(click.types.StringParamType):
    """Text that was valid UTF-8 on the command line."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail("it is not valid UTF-8", param, ctx)
        return value


TEXT = _Text()

model_option = click.option(
    "-m", "--model", type=TEXT, envvar="LEPTON_MODEL", show_envvar=True,
    help="The model, as NAME or NAME:VARIANT. By default the only one that can do it.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
parse_special_option = click.option(
    "--parse-special/--no-parse-special", default=None,
    help="Whether spellings of control tokens become those tokens. By default they do.",
)  # fmt: skip

_NATURAL = click.IntRange(min=0)
_SAMPLING: tuple[Callable[[Any], Any], ...] = (
    click.option("--max-tokens", type=click.IntRange(min=1), help="The most tokens to write."),
    click.option("--temperature", type=float, help="0 always takes the likeliest token."),
    click.option("--top-k", type=_NATURAL, help="Keep so many of the likeliest tokens; 0: all."),
    click.option("--top-p", type=float, help="Keep the likeliest tokens up to this probability."),
    click.option("--min-p", type=float, help="Drop tokens below this share of the likeliest."),
    click.option("--seed", type=_NATURAL, help="Fix the random numbers."),
    click.option("--stop", type=TEXT, multiple=True, help="End at this text. Repeatable."),
    click.option("--repetition-penalty", type=float, help="Above 1: avoid what occurred."),
    click.option("--frequency-penalty", type=float, help="Avoid what occurred, each time more."),
    click.option("--presence-penalty", type=float, help="Avoid what occurred in the answer."),
)


def sampling_options(command: CommandT) -> CommandT:
    """How tokens are chosen; the names are those of `SamplingOptions`."""
    for option in reversed(_SAMPLING):
        command = option(command)
    return command


_TEXTS: tuple[Callable[[Any], Any], ...] = (
    click.option("-i", "--input", "source", type=click.File("rb"), metavar="FILE",
                 help="Read texts from FILE, one per line; - is standard input."),
    click.option("--json-lines", "field", type=TEXT, metavar="FIELD",
                 help="Each line is a JSON object and this member of it is the text."),
    click.option("--null", "is_null_separated", is_flag=True,
                 help="Texts end with a zero byte instead of a line break."),
    click.option("--json", "as_json", is_flag=True,
                 help="Print JSON lines on a terminal too."),
)  # fmt: skip
_TRUNCATION: tuple[Callable[[Any], Any], ...] = (
    click.option("--truncate", type=click.Choice(["left", "right"]),
                 help="Cut this end of texts that are too long; without it they are refused."),
    click.option("--truncate-to", "truncate_to_tokens", type=click.IntRange(min=1),
                 help="With --truncate: keep so many tokens."),
)  # fmt: skip


def text_options(command: CommandT) -> CommandT:
    """Where texts come from, and how what became of them is printed; see `lines.Lines`."""
    for option in reversed(_TEXTS):
        command = option(command)
    return command


def truncation_options(command: CommandT) -> CommandT:
    """What is done with texts that are too long."""
    for option in reversed(_TRUNCATION):
        command = option(command)
    return command


def piped_text(what: str) -> str:
    """All of stdin, less one line break at its end.

    Raises:
        click.UsageError: stdin is a terminal, so that nothing was given, or it is not UTF-8.
    """
    if sys.stdin.isatty():
        raise click.UsageError(f"give the {what} as an argument, or on standard input")
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise click.UsageError("standard input is not valid UTF-8") from error
    return text.removesuffix("\n")
