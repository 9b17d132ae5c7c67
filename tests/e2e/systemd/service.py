"""A service manager for tests: starts the daemon as the unit does, and hears what it says."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

PATIENCE_S = 30.0
# What a fake model needs to answer slowly enough to be stopped in the middle, for ever.
FAKE_MODEL = "toy:tokens_per_s=50,mean_sentences=0,context=4096"


class Service:
    """One run of `leptond serve` under a `NOTIFY_SOCKET` of the test.

    Args:
        directory: short, for Unix sockets; holds everything of the run.
        config: text of the configuration.
        environ: further variables.
        flags: further flags.
    """

    def __init__(
        self,
        directory: Path,
        config: str,
        *,
        environ: Mapping[str, str] | None = None,
        flags: tuple[str, ...] = (),
    ) -> None:
        self.runtime = directory / "run"
        self.state = directory / "state"
        for path in (self.runtime, self.state):
            path.mkdir(mode=0o750, exist_ok=True)
        self._config = directory / "leptond.toml"
        self._config.write_text(config)
        self._notify = directory / "notify"
        self._notify.unlink(missing_ok=True)
        self._log = directory / "log"
        self._environ = dict(environ or {})
        self._flags = flags
        self.messages: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._notify))
        self._socket.settimeout(PATIENCE_S)
        with self._log.open("wb") as log:
            status = os.fstat(log.fileno())
            inherited = {"PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV"}
            environ = {key: value for key, value in os.environ.items() if key in inherited}
            environ |= {
                "NOTIFY_SOCKET": str(self._notify),
                "RUNTIME_DIRECTORY": str(self.runtime),
                "STATE_DIRECTORY": str(self.state),
                "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}",
                "TMPDIR": str(self.state),  # also of a daemon that is killed nothing is left
            }
            command = [sys.executable, "-m", "leptond", "serve", "--config", str(self._config)]
            self._process = subprocess.Popen(
                [*command, "--fake-model", FAKE_MODEL, *self._flags],
                env=environ | self._environ,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._socket.close()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def log(self) -> list[str]:
        """The lines of stderr so far."""
        return self._log.read_text().splitlines()

    @property
    def log_entries(self) -> list[dict[str, Any]]:
        """The lines of stderr as the journal would take them: JSON after a priority."""
        return [json.loads(line.partition(">")[2]) for line in self.log]

    def wait_for(self, assignment: str) -> None:
        """Return when the daemon has sent a message with this line; TimeoutError when not."""
        while not any(assignment in message.split("\n") for message in self.messages):
            self.messages.append(self._socket.recv(4096).decode())

    def send(self, number: signal.Signals) -> None:
        """Send the daemon a signal."""
        self.process.send_signal(number)

    def expect_exit(self, status: int) -> None:
        """Wait for the end, take in what was still to be heard, and compare the exit status."""
        ended = self.process.wait(PATIENCE_S)
        self._socket.settimeout(0)
        try:
            while True:
                self.messages.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            assert ended == status, "\n".join([f"exit status {ended}, not {status}", *self.log])
