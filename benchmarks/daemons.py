"""Starts the real daemon, or another server, as a process of its own, and stops it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Server", "running"]

_STOP_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs: its address as a gRPC target, and its process."""

    address: str
    pid: int


@contextmanager
def running(
    module: str, arguments: Sequence[str], environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run `python -m module arguments`; its first line of output is its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environ,
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            msg = f"{module} {' '.join(arguments)} did not start (exit {process.wait()})"
            raise RuntimeError(msg)
        yield Server(line.split()[0], process.pid)
    finally:
        process.terminate()
        process.wait(_STOP_TIMEOUT_S)
