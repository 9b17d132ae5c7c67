"""The protocol of sd_notify(3), without a library: short messages to the service manager.

Called on the event loop: a message is one datagram, and a service manager that does not take it
within a moment is left alone. Without `NOTIFY_SOCKET` every method does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import Final

__all__ = ["Notifier"]

logger = logging.getLogger(__name__)

# systemd reads its socket all the time; one that takes longer is stuck, and we are not.
_SEND_TIMEOUT_S: Final = 1.0
_MAX_STATUS_CHARS: Final = 512


class Notifier:
    """Tells the service manager how the daemon is.

    Args:
        address: `$NOTIFY_SOCKET`: a path, or `@name` for an abstract socket; empty for none.
    """

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @property
    def is_heard(self) -> bool:
        """Whether there is a service manager that wants to know."""
        return bool(self._address)

    def ready(self, status: str = "") -> bool:
        """Report that the start, or a reload, is complete."""
        return self._send("READY=1", *_status(status))

    def status(self, status: str) -> bool:
        """Describe in one line what the daemon is doing; `systemctl status` shows it."""
        return self._send(*_status(status))

    def reloading(self) -> bool:
        """Report that the configuration is being read again; `ready` ends it."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1_000}")

    def stopping(self, status: str = "") -> bool:
        """Report that the daemon stops."""
        return self._send("STOPPING=1", *_status(status))

    def watchdog(self) -> bool:
        """Give a sign of life."""
        return self._send("WATCHDOG=1")

    def main_pid(self, pid: int) -> bool:
        """Report that another process carries the service on."""
        return self._send(f"MAINPID={pid}")

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for so many seconds from now, in a start or a stop that takes longer than usual."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, *assignments: str) -> bool:
        """Send one message; False when nobody took it, which never stops the daemon."""
        if not self._address or not assignments:
            return False
        message = "\n".join(assignments).encode("utf-8", "replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(_SEND_TIMEOUT_S)
                sender.connect(os.fsencode(self._address))
                sender.sendall(message)
        except OSError as error:
            logger.warning("service manager not told message=%r error=%s", assignments[0], error)
            return False
        return True


def _status(text: str) -> tuple[str, ...]:
    # A line break would start an assignment of its own.
    line = " ".join(text.split())[:_MAX_STATUS_CHARS]
    return (f"STATUS={line}",) if line else ()
