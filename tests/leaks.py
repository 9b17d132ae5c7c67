"""Finds the threads and descriptors that a test left behind; `tests/conftest.py` calls it."""

from __future__ import annotations

import gc
import importlib.util
import threading
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Belongings", "open_process_wide_descriptors"]

PATIENCE_S = 5.0


def open_process_wide_descriptors() -> None:
    """Let libraries open what they keep for good: libuv its signal pipe, grpc.aio its poller."""
    if importlib.util.find_spec("uvloop"):
        import uvloop

        uvloop.new_event_loop().close()
    if importlib.util.find_spec("grpc"):
        import grpc.aio

        grpc.aio.init_grpc_aio()  # its poller: one thread and one pair of sockets


@dataclass(frozen=True, slots=True)
class Belongings:
    """What the process held at one moment."""

    threads: frozenset[threading.Thread]
    descriptors: frozenset[tuple[int, str]]

    @classmethod
    def now(cls) -> Belongings:
        """Look at the process, event queues of libraries left out.

        gRPC makes its epoll and eventfd descriptors once, on first use, and keeps them.
        """
        descriptors: set[tuple[int, str]] = set()
        for entry in Path("/proc/self/fd").iterdir():
            try:
                target = str(entry.readlink())
            except FileNotFoundError:
                continue  # the descriptor of this very listing
            if not target.startswith("anon_inode:"):
                descriptors.add((int(entry.name), target))
        return cls(frozenset(threading.enumerate()), frozenset(descriptors))

    def left_behind(self, *, patience_s: float = PATIENCE_S) -> str | None:
        """Return what has come since and stays, in words, or None.

        Waits up to `patience_s`, because gRPC closes its sockets on threads of its own.
        """
        give_up_at = time.monotonic() + patience_s
        while True:
            gc.collect()
            now = Belongings.now()
            threads = sorted(thread.name for thread in now.threads - self.threads)
            descriptors = sorted(now.descriptors - self.descriptors)
            if not threads and not descriptors:
                return None
            if time.monotonic() > give_up_at:
                return f"threads {threads}, descriptors {descriptors}"
            time.sleep(0.01)
