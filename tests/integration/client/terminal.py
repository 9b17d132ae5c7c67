"""The `lepton` command on a terminal of its own, typed at and read by a test."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.integration.client.scripted import PATIENCE_S

LEPTON = Path(sys.executable).with_name("lepton")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[=>]|\r")


class Terminal:
    """A running command and the master side of its terminal."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self._process = process
        self._master = master
        self._unread = ""
        self.raw = b""
        """Everything that was written, escape sequences included."""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def interrupt_prompt(self, text: str) -> None:
        """Ctrl-C at a prompt, until `text` was shown.

        Python looks for signals when its wait for a key is interrupted; one that comes just before
        that wait begins is seen with the next.
        """
        for _ in range(round(PATIENCE_S)):
            self.interrupt()
            with suppress(AssertionError):
                self.expect(text, patience_s=1.0)
                return
        self.expect(text)

    def expect(self, text: str, *, patience_s: float = PATIENCE_S) -> str:
        """Read until `text` was shown; returns what came before it."""
        give_up_at = time.monotonic() + patience_s
        while text not in self._unread:
            left_s = give_up_at - time.monotonic()
            if left_s <= 0 or not self._read(left_s):
                raise AssertionError(f"{text!r} was not shown, but {self._unread!r}")
        before, _, self._unread = self._unread.partition(text)
        return before

    def ends(self) -> int:
        """Read to the end; returns the exit code."""
        while self._read(PATIENCE_S):
            pass
        return self._process.wait(PATIENCE_S)

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._master], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # the other side is closed
            return False
        self.raw += data
        self._unread += _ESCAPE.sub("", data.decode())
        return True


@contextmanager
def on_terminal(*words: str, home: Path) -> Iterator[Terminal]:
    """Run `lepton` with these words, its three streams on a terminal."""
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [LEPTON, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(home),
            start_new_session=True,
        )
        os.close(slave)
        try:
            yield Terminal(process, master)
        finally:
            process.kill()
            process.wait(PATIENCE_S)
    finally:
        os.close(master)


def environment(home: Path) -> dict[str, str]:
    """Nothing of the user's own: no history, no address, no language."""
    return {
        "HOME": str(home),
        "XDG_STATE_HOME": str(home),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        "COLUMNS": "200",
        "INPUTRC": "/dev/null",
    }
