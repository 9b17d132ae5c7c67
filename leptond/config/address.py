"""Addresses that the daemon listens on, as text and as a value."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Address"]

_UNIX: Final = "unix:"
# sockaddr_un.sun_path has 108 bytes with the closing zero; the server binds a private name beside
# the public one first, `.NAME.12345678`, and that has to fit too.
_MAX_PATH_BYTES: Final = 107 - len(".") - len(".12345678")
_MAX_PORT: Final = 65535
_FORMS: Final = "must be host:port, [ipv6]:port or unix:/path"


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address or the path of a Unix socket; exactly one of the two.

    Attributes:
        host: a name or an IP address without brackets; empty for a Unix socket.
        port: 0 lets the system choose.
        path: of the Unix socket; None for TCP.
    """

    host: str = ""
    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host:port`, `[ipv6]:port` or `unix:/path`. ValueError says what is wrong."""
        if text.startswith(_UNIX):
            return cls(path=_parse_path(text.removeprefix(_UNIX)))
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdecimal():
            raise ValueError(_FORMS)
        if int(port) > _MAX_PORT:
            raise ValueError(f"must have a port from 0 to {_MAX_PORT}")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            _parse_ipv6(host)
        elif ":" in host or "/" in host or any(char.isspace() for char in host):
            raise ValueError(_FORMS)
        return cls(host=host, port=int(port))

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket."""
        return self.path is not None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it over TCP; names other than localhost may not."""
        if self.is_unix:
            return False
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path is not None:
            return f"{_UNIX}{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _parse_path(text: str) -> Path:
    # `unix:///path` is the same to gRPC; `//path` would be another path to POSIX.
    path = Path("/" + text.lstrip("/")) if text.startswith("/") else None
    if path is None or "\0" in text or path == Path("/") or text.endswith("/"):
        raise ValueError("must be unix:/path with an absolute path")
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise ValueError(f"must have a path of at most {_MAX_PATH_BYTES} bytes")
    return path


def _parse_ipv6(text: str) -> None:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        raise ValueError("must have an IPv6 address between the brackets") from None
