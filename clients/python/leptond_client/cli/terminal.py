"""What is written where: answers to stdout, everything else to stderr, and nothing that drives.

On a terminal, text from a model cannot move the cursor, change colours or the title: control
characters are shown, not sent. In a pipe it is passed on as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from leptond_client.values import FinishReason, Generation

__all__ = ["Answer", "note", "one_line", "print_json", "print_table", "printable", "summary"]

_PICTURES = 0x2400  # U+2400 and on: pictures of the control characters from 0
_SHOWN: Mapping[int, int | str | None] = {
    **{code: _PICTURES + code for code in range(0x20)},
    0x09: "\t",
    0x0A: "\n",
    0x0D: None,  # a line's end in some texts; alone it would overwrite the line
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}
_CUT_BY = {
    FinishReason.LENGTH: "cut at --max-tokens",
    FinishReason.DEFAULT_LENGTH: "cut at the daemon's limit; see --max-tokens",
    FinishReason.CONTEXT_LENGTH: "cut because the context is full",
}


class Answer:
    """Writes an answer to stdout as it comes."""

    def __init__(self) -> None:
        self._show = printable if sys.stdout.isatty() else str
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """What was written, as it came."""
        return "".join(self._pieces)

    def write(self, text: str) -> None:
        """Write a piece."""
        if text:
            self._pieces.append(text)  # first: Ctrl-C may come right after it was written
            sys.stdout.write(self._show(text))
            sys.stdout.flush()

    def end(self) -> None:
        """End the last line, unless the answer did."""
        if self._pieces and not self._pieces[-1].endswith("\n"):
            click.echo()


def printable(text: str) -> str:
    """The text with its control characters made visible, line breaks and tabs left."""
    return text.translate(_SHOWN)


def one_line(text: str) -> str:
    """The text on one line and without control characters."""
    return printable(" ".join(text.split()))


def note(text: str) -> None:
    """Say something beside the answer: dim, and only to people."""
    if sys.stderr.isatty():
        click.secho(one_line(text), dim=True, err=True)


def summary(result: Generation) -> str:
    """What an answer cost, in one line."""
    usage, timing = result.usage, result.timing
    facts = [f"{usage.completion_tokens} token{'' if usage.completion_tokens == 1 else 's'}"]
    if usage.completion_tokens > 1 and timing.decode_ms > 0:
        rate = (usage.completion_tokens - 1) / timing.decode_ms * 1000
        facts.append(f"{rate:.1f} tokens/s")
    facts.append(f"first token after {timing.first_token_ms / 1000:.2f} s")
    if result.finish_reason in _CUT_BY:
        facts.append(_CUT_BY[result.finish_reason])
    return " · ".join(facts)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on one line, in ASCII."""
    click.echo(json.dumps(value))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table for people; what a cell holds cannot drive the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headers, box=None, header_style="dim")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    Console().print(table)
