"""A bar on the terminal for what takes long: how many texts are done, and how fast."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Advance", "progress_bar"]

Advance = Callable[[int, int], None]
"""Takes how many more texts are done, and how many bytes of input they were."""


@contextmanager
def progress_bar(total_bytes: int | None, *, is_shown: bool) -> Iterator[Advance]:
    """Show a bar on stderr while the block runs, if that is a terminal.

    Args:
        total_bytes: the size of the input, where known.
        is_shown: whether one is wanted.
    """
    if not (is_shown and sys.stderr.isatty()):
        yield lambda num_texts, num_bytes: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("0 texts", total=total_bytes)
        num_done = 0

        def advance(num_texts: int, num_bytes: int) -> None:
            nonlocal num_done
            num_done += num_texts
            progress.update(bar, advance=num_bytes, description=f"{num_done} texts")

        yield advance
