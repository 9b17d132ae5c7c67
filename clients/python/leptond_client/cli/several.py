"""Calls about many texts, a part of them at a time, in their order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from leptond_client.cli.failures import Interrupted, failure
from leptond_client.cli.lines import Line
from leptond_client.cli.progress import progress_bar
from leptond_client.errors import LeptonError

__all__ = ["answers", "named_line"]

ResultT = TypeVar("ResultT")

_TEXTS_PER_CALL = 64


def answers(
    lines: Sequence[Line],
    ask: Callable[[list[Line]], Sequence[ResultT]],
    *,
    address: str,
    is_progress_shown: bool,
) -> Iterator[tuple[Line, ResultT]]:
    """Yield each line with what `ask` brings for it.

    Raises:
        Failure: a call failed; its message names the line that was wrong, if one was.
        Interrupted: Ctrl-C; its message says how far it came.
    """
    num_done = 0
    remaining = iter(lines)
    total = sum(line.num_bytes for line in lines)
    with progress_bar(total or None, is_shown=is_progress_shown) as advance:
        try:
            while part := list(islice(remaining, _TEXTS_PER_CALL)):
                try:
                    found = ask(part)
                except LeptonError as error:
                    raise failure(named_line(error, part), address) from error
                yield from zip(part, found, strict=True)
                num_done += len(part)
                advance(len(part), sum(line.num_bytes for line in part))
        except KeyboardInterrupt as error:
            raise Interrupted(f"interrupted after {num_done} of {len(lines)} texts") from error


def named_line(error: LeptonError, lines: Sequence[Line]) -> LeptonError:
    """The error, its message with the number of the line whose text it is about."""
    index = re.match(r"\w+\[(\d+)\]", error.field)
    if index and int(index[1]) < len(lines):
        error.message = f"line {lines[int(index[1])].number}: {error.message}"
    return error
