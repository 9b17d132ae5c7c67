"""Reading what the user types: lines, texts of several lines, history across runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Prompter", "history", "history_path"]

_PROMPT = "> "
_MORE = "… "
_QUOTES = '"""'
_MAX_HISTORY_LINES = 1000


class Prompter:
    """Reads one text after another.

    Args:
        read_line: shows a prompt and returns a line without its end; raises EOFError at the end.
    """

    def __init__(self, read_line: Callable[[str], str] = input) -> None:
        self._read_line = read_line

    def read(self) -> str:
        r'''The next text: a line, lines joined by `\` at their ends, or lines between `"""`.

        Raises:
            EOFError: there is none.
            KeyboardInterrupt: Ctrl-C.
        '''
        line = self._read_line(_PROMPT)
        if line.lstrip().startswith(_QUOTES):
            return self._read_quoted(line.lstrip().removeprefix(_QUOTES))
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1].removesuffix("\\")
            lines.append(self._read_line(_MORE))
        return "\n".join(lines).strip()

    def _read_quoted(self, line: str) -> str:
        lines = []
        while not line.rstrip().endswith(_QUOTES):
            lines.append(line)
            line = self._read_line(_MORE)
        lines.append(line.rstrip().removesuffix(_QUOTES))
        return "\n".join(lines).strip("\n")


def history_path() -> Path:
    """Where the lines of earlier chats are kept."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "lepton" / "history"


@contextmanager
def history(path: Path) -> Iterator[None]:
    """Edit lines with the history in `path`, and keep what was typed there."""
    import readline

    if path.is_file():
        readline.read_history_file(path)
    readline.set_history_length(_MAX_HISTORY_LINES)
    try:
        yield
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        readline.write_history_file(path)
