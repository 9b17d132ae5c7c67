"""Texts from arguments, files and standard input, each with the number of its line."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import click

__all__ = ["BadLine", "Line", "Lines"]

_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Line:
    """A text.

    Attributes:
        number: of its line, from 1; of an argument its place.
        text: without the line break.
        num_bytes: of its line in the file, the line break included.
    """

    number: int
    text: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that holds no text, and why."""

    number: int
    reason: str
    num_bytes: int


class Lines:
    """The texts of one invocation, read as they are asked for.

    Args:
        arguments: texts on the command line; where there are any, `source` is not read.
        source: a file or standard input; None is standard input.
        field: each line is a JSON object and this member of it is the text; None takes the line.
        is_null_separated: texts end with a zero byte instead of a line break.

    Raises:
        click.UsageError: texts come from nowhere, or from two places.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        source: BinaryIO | None,
        *,
        field: str | None = None,
        is_null_separated: bool = False,
    ) -> None:
        if arguments and source is not None:
            raise click.UsageError("give texts as arguments or with --input, not both")
        if not arguments and source is None and sys.stdin.isatty():
            raise click.UsageError("give texts as arguments, with --input or on standard input")
        self._arguments = arguments
        self._source = sys.stdin.buffer if source is None and not arguments else source
        self._field = field
        self._end = b"\0" if is_null_separated else b"\n"
        self.read: deque[Line | BadLine] = deque()
        """What `texts` has read, in its order; whoever answers takes it from here."""

    @property
    def total_bytes(self) -> int | None:
        """The size of the file; None where that is not known."""
        try:
            status = os.fstat(self._source.fileno()) if self._source else None
        except OSError:  # it is no file of the system
            return None
        return status.st_size if status and stat.S_ISREG(status.st_mode) else None

    def __iter__(self) -> Iterator[Line | BadLine]:
        if self._source is None:
            for number, text in enumerate(self._arguments, 1):
                yield Line(number, text, 0)
        else:
            for number, line in enumerate(_split(self._source, self._end), 1):
                yield self._parsed(number, line)

    def texts(self) -> Iterator[str]:
        """The texts; bad lines are left out of them and remembered in `read`."""
        for line in self:
            self.read.append(line)
            if isinstance(line, Line):
                yield line.text

    def good(self) -> list[Line]:
        """All lines.

        Raises:
            click.UsageError: one is bad, or there are none.
        """
        found = []
        for line in self:
            if isinstance(line, BadLine):
                raise click.UsageError(f"line {line.number}: {line.reason}")
            found.append(line)
        if not found:
            raise click.UsageError("there are no texts")
        return found

    def _parsed(self, number: int, line: bytes) -> Line | BadLine:
        size = len(line)
        try:
            text = line.removesuffix(self._end).decode()
        except UnicodeDecodeError as error:
            return BadLine(number, f"it is not valid UTF-8, at byte {error.start}", size)
        if self._field is None:
            return Line(number, text.removesuffix("\r"), size)
        try:
            found = json.loads(text)
        except ValueError as error:
            return BadLine(number, f"it is no JSON: {error}", size)
        value = found.get(self._field) if isinstance(found, dict) else None
        if not isinstance(value, str):
            return BadLine(number, f"it is no JSON object with a text {self._field!r}", size)
        try:
            value.encode()
        except UnicodeEncodeError:
            return BadLine(number, f"{self._field!r} is not text that UTF-8 can hold", size)
        return Line(number, value, size)


def _split(source: BinaryIO, end: bytes) -> Iterator[bytes]:
    """Pieces with their ends; the last one may have none."""
    if end == b"\n":
        yield from source
        return
    rest = b""
    while chunk := source.read(_CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(end)
        yield from (piece + end for piece in whole)
    if rest:
        yield rest
