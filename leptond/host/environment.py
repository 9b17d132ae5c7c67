"""What the process was given by the one who started it: directories, sockets, the journal.

The variables are those of systemd.exec(5) and of the XDG base directory specification. This module
and `leptond.config` are the only ones that read the environment.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HostEnvironment", "UnsafeDirectory"]

_NAME = "leptond"


class UnsafeDirectory(OSError):
    """A runtime directory that others could write to or that belongs to somebody else."""


@dataclass(frozen=True, slots=True)
class HostEnvironment:
    """What the environment says, as it was at the start.

    Attributes:
        runtime_directory: for sockets and locks: `$RUNTIME_DIRECTORY`, else
            `$XDG_RUNTIME_DIR/leptond`, else a private folder among the temporary files.
        state_directory: the default store: `$STATE_DIRECTORY`, else `$XDG_DATA_HOME/leptond`, else
            `~/.local/share/leptond`.
        state_origin: the variable that named it, or empty.
        notify_socket: address of the service manager's socket, or empty.
        watchdog_interval_s: how often the service manager wants a sign of life; None for never.
        journal_stream: `device:inode` of the journal's stream, or empty.
    """

    runtime_directory: Path
    state_directory: Path
    state_origin: str = ""
    notify_socket: str = ""
    watchdog_interval_s: float | None = None
    journal_stream: str = ""

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> HostEnvironment:
        """Read `environ`, by default the process's own."""
        environ = os.environ if environ is None else environ
        state_directory, state_origin = _find_state_directory(environ)
        return cls(
            runtime_directory=_find_runtime_directory(environ),
            state_directory=state_directory,
            state_origin=state_origin,
            notify_socket=environ.get("NOTIFY_SOCKET", ""),
            watchdog_interval_s=_find_watchdog_interval(environ),
            journal_stream=environ.get("JOURNAL_STREAM", ""),
        )

    def is_journal(self, descriptor: int) -> bool:
        """Say whether what is written to `descriptor` goes straight to the systemd journal."""
        try:
            status = os.fstat(descriptor)
        except OSError:  # closed
            return False
        return self.journal_stream == f"{status.st_dev}:{status.st_ino}"

    def make_runtime_directory(self) -> Path:
        """Make the runtime directory unless it is there, and return it.

        Raises:
            UnsafeDirectory: somebody else owns it or may write to it, and so could replace the
                sockets and the locks in it.
        """
        directory = self.runtime_directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise UnsafeDirectory(f"{directory} is not a directory")
        if status.st_uid not in {os.geteuid(), 0}:
            raise UnsafeDirectory(f"{directory} belongs to user {status.st_uid}")
        if status.st_mode & stat.S_IWOTH:
            raise UnsafeDirectory(f"anybody may write to {directory}")
        return directory


def _find_runtime_directory(environ: Mapping[str, str]) -> Path:
    # systemd names several directories with colons between them.
    if given := environ.get("RUNTIME_DIRECTORY", "").split(":")[0]:
        return Path(given)
    if given := environ.get("XDG_RUNTIME_DIR", ""):
        return Path(given) / _NAME
    return Path(tempfile.gettempdir()) / f"{_NAME}-{os.geteuid()}"


def _find_state_directory(environ: Mapping[str, str]) -> tuple[Path, str]:
    if given := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(given), "STATE_DIRECTORY"
    if given := environ.get("XDG_DATA_HOME", ""):
        return Path(given) / _NAME, "XDG_DATA_HOME"
    home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - no home is no error here
    return Path(home) / ".local" / "share" / _NAME, ""


def _find_watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Follow sd_watchdog_enabled(3): half of the limit, and only when it is meant for us."""
    limit_us = environ.get("WATCHDOG_USEC", "")
    if not limit_us.isdecimal() or int(limit_us) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(limit_us) / 2e6
