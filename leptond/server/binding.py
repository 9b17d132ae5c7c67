"""Finds out why an address cannot be bound: gRPC says that it cannot, and logs why past our log.

On the event loop, while the daemon starts.
"""

from __future__ import annotations

import socket
from pathlib import Path

__all__ = ["check_bindable"]

_UNIX = "unix:"


def check_bindable(target: str) -> None:
    """Bind `host:port` or `unix:/path` with a plain socket and let it go again.

    Raises:
        OSError: the reason. Of a name with several addresses one is enough, as for gRPC.
    """
    if target.startswith(_UNIX):
        path = target.removeprefix(_UNIX)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.bind(path)
        Path(path).unlink()
        return
    host, _, port = target.rpartition(":")
    reason: OSError | None = None
    for family, kind, protocol, _, place in socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
                return
        except OSError as error:
            reason = reason or error
    if reason is not None:
        raise reason
