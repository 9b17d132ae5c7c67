"""What the two clients share of a connection: its address, its settings, the attempts of a call.

Neither sync nor asyncio: the waiting and the calling are done by `client` and `aio`.
"""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypedDict, TypeVar, cast

import grpc
from google.protobuf.message import Message as WireMessage

from leptond_client.errors import Cancelled, RpcFailure, from_rpc_failure
from leptond_client.retry import RetryPolicy, RetrySchedule

__all__ = [
    "DEFAULT_ADDRESS",
    "Attempts",
    "ConnectionKeywords",
    "ConnectionOptions",
    "ConnectionState",
    "Outcome",
    "resolve_address",
    "serialize",
]

T = TypeVar("T")

DEFAULT_ADDRESS = "127.0.0.1:8600"
_ADDRESS_VARIABLE = "LEPTON_ADDRESS"
_UNIX = "unix:"
# The daemon takes a ping every 10 s; a peer that is gone is noticed within 80 s.
_KEEPALIVE_TIME_MS = 60_000
_KEEPALIVE_TIMEOUT_MS = 20_000
# gRPC would wait up to two minutes before it looks for a daemon that restarts.
_INITIAL_RECONNECT_MS = 100
_MAX_RECONNECT_MS = 1_000


def resolve_address(address: str | None) -> str:
    """The address of the daemon: `host:port` or `unix:/path`.

    Args:
        address: None takes `$LEPTON_ADDRESS`, else 127.0.0.1:8600.

    Raises:
        ValueError: it is none.
    """
    found = address or os.environ.get(_ADDRESS_VARIABLE) or DEFAULT_ADDRESS
    if found.startswith(_UNIX):
        if found == _UNIX:
            raise ValueError("the address 'unix:' has no path")
        return found
    host, _, port = found.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise ValueError(f"the address {found!r} is neither host:port nor unix:/path")
    return found


class ConnectionKeywords(TypedDict, total=False):
    """The keyword arguments of a client; see `ConnectionOptions`."""

    timeout: float | None
    retry: RetryPolicy
    max_message_bytes: int
    credentials: grpc.ChannelCredentials | None
    metadata: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Where the daemon is, and how it is talked to.

    Attributes:
        address: from `resolve_address`.
        timeout: seconds that a call may take where the call itself does not say; None is no limit.
        retry: when calls that were not run are repeated.
        max_message_bytes: the longest answer that is accepted. gRPC's own limit is 4 MiB.
        credentials: for TLS; None is a plain connection.
        metadata: sent with every call, for example a token.
    """

    address: str
    timeout: float | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    max_message_bytes: int = 64 << 20
    credentials: grpc.ChannelCredentials | None = None
    metadata: tuple[tuple[str, str], ...] = ()

    def channel_arguments(self) -> list[tuple[str, int]]:
        """GRPC's channel arguments."""
        arguments = [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", -1),  # the daemon knows its limit and says it
            ("grpc.keepalive_time_ms", _KEEPALIVE_TIME_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.http2.max_pings_without_data", 0),  # an answer may be long in coming
            ("grpc.initial_reconnect_backoff_ms", _INITIAL_RECONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", _MAX_RECONNECT_MS),
        ]
        if _is_loopback(self.address):
            arguments.append(("grpc.enable_http_proxy", 0))
        return arguments


@dataclass(slots=True)
class ConnectionState:
    """What the calls of one client share.

    Attributes:
        is_known: whether a daemon has ever answered at the address.
        is_closed: whether the client was closed.
    """

    is_known: bool = False
    is_closed: bool = False


class Attempts:
    """The attempts of one call: how long each may take, and when the next one begins.

    Args:
        settings: the client's.
        state: the client's, too.
        options: of the call; `timeout` is read.
    """

    def __init__(
        self, settings: ConnectionOptions, state: ConnectionState, options: Mapping[str, Any]
    ) -> None:
        timeout = options.get("timeout")
        self._timeout = settings.timeout if timeout is None else timeout
        self._deadline = None if self._timeout is None else time.monotonic() + self._timeout
        self._schedule = RetrySchedule(settings.retry, self._deadline)
        self._state = state

    def remaining_s(self) -> float | None:
        """Seconds until the call's timeout; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def answered(self) -> None:
        """A daemon answered."""
        self._state.is_known = True

    def delay_after(self, failure: grpc.RpcError, *, was_answered: bool = False) -> float:
        """Seconds until the next attempt.

        Raises:
            LeptonError: the call is not repeated, and this is how it ended.
        """
        if self._state.is_closed:
            raise Cancelled("the client was closed") from failure
        error = from_rpc_failure(
            cast("RpcFailure", failure), was_answered=was_answered, timeout=self._timeout
        )
        if error.is_from_daemon:
            self.answered()
        delay_s = self._schedule.delay_after(error, time.monotonic(), is_known=self._state.is_known)
        if delay_s is None:
            raise error from failure
        return delay_s


class Outcome(Generic[T]):
    """What a stream said as a whole, once it has been read to its end."""

    def __init__(self) -> None:
        self._values: list[T] = []

    @property
    def is_known(self) -> bool:
        """Whether the stream has been read to its end."""
        return bool(self._values)

    def set(self, value: T) -> None:
        """The stream has been read to its end."""
        self._values.append(value)

    def get(self) -> T:
        """What it said; RuntimeError before its end."""
        if not self._values:
            raise RuntimeError("the stream has not been read to its end")
        return self._values[0]


def serialize(message: WireMessage) -> bytes:
    """A request's bytes."""
    return message.SerializeToString()


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
