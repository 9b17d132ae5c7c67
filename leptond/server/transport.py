"""The gRPC servers and their addresses: bind, publish, stop.

On the event loop. One `grpc.aio.server` per role, since a call does not tell on which address it
came. Addresses are locked by `leptond.host` before they get here.

I1  A Unix socket appears under its public name complete: it is bound under a private name, given
    its mode and renamed. On stop it is removed only if it is still ours.
I2  TCP ports are bound without SO_REUSEPORT: a second server cannot take half of the calls.
"""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc.aio import Server
from grpc_channelz.v1 import channelz

from leptond.errors import InvalidRequest
from leptond.server.binding import check_bindable

__all__ = ["GrpcServer", "TransportOptions"]

_UNIX = "unix:"
_MAX_PENDING_CALLS = 1 << 16
_PROBE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Settings of every connection.

    Attributes:
        max_message_bytes: longest message, either way.
        keepalive_time_s: silence after which a peer is asked whether it lives; 0 never asks.
        keepalive_timeout_s: silence after the question that ends the connection.
        min_ping_interval_s: pings that clients may send, with and without open calls.
        max_connection_age_s: age at which a connection is asked to be made anew; 0 is none.
        max_connection_age_grace_s: what its calls may take then.
        max_concurrent_streams: open calls per connection; 0 is gRPC's own limit.
        unix_mode: mode of public Unix sockets: the group may connect.
        admin_unix_mode: mode of administrative ones.
    """

    max_message_bytes: int = 64 << 20
    keepalive_time_s: float = 60.0
    keepalive_timeout_s: float = 20.0
    min_ping_interval_s: float = 10.0
    max_connection_age_s: float = 0.0
    max_connection_age_grace_s: float = 60.0
    max_concurrent_streams: int = 0
    unix_mode: int = 0o660
    admin_unix_mode: int = 0o600

    def channel_arguments(self) -> list[tuple[str, int]]:
        """As gRPC's channel arguments."""

        def ms(seconds: float) -> int:
            return int(seconds * 1000)

        arguments = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            # Refusing is the scheduler's, with a reason and a time to come again: gRPC's own limit
            # on calls not yet begun answers a bare CANCELLED.
            ("grpc.server.max_pending_requests", _MAX_PENDING_CALLS),
            ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING_CALLS),
            ("grpc.keepalive_permit_without_calls", 1),
            # A ping that comes a little early must not end the connection: half the interval.
            ("grpc.http2.min_ping_interval_without_data_ms", ms(self.min_ping_interval_s / 2)),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", ms(self.min_ping_interval_s / 2)),
        ]
        if self.keepalive_time_s:
            arguments += [
                ("grpc.keepalive_time_ms", ms(self.keepalive_time_s)),
                ("grpc.keepalive_timeout_ms", ms(self.keepalive_timeout_s)),
            ]
        if self.max_connection_age_s:
            arguments += [
                ("grpc.max_connection_age_ms", ms(self.max_connection_age_s)),
                ("grpc.max_connection_age_grace_ms", ms(self.max_connection_age_grace_s)),
            ]
        if self.max_concurrent_streams:
            arguments.append(("grpc.max_concurrent_streams", self.max_concurrent_streams))
        return arguments


@dataclass(slots=True)
class _UnixSocket:
    """A socket file under its private name, to be published under its public one."""

    public: Path
    private: Path
    mode: int
    inode: int = field(default=0)

    def publish(self) -> None:
        self.private.chmod(self.mode)
        self.inode = self.private.stat().st_ino
        self.private.rename(self.public)

    def remove(self) -> None:
        self.private.unlink(missing_ok=True)
        if self.public.exists() and self.public.stat().st_ino == self.inode:
            self.public.unlink()


def _refuse_taken(public: Path) -> None:
    """Raise `OSError` when the path is no socket, or one that somebody answers on.

    A socket that nobody answers on was left behind and may be replaced.
    """
    if not public.exists():
        return
    if not public.is_socket():
        raise FileExistsError(errno.EEXIST, "the path exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        if probe.connect_ex(str(public)) == 0:
            raise FileExistsError(errno.EADDRINUSE, "another process serves this socket")


class GrpcServer:
    """One server with its addresses.

    Args:
        handlers: from `leptond.server.services`.
        addresses: `host:port` or `unix:/path`; port 0 lets the system choose.
        unix_mode: mode of its Unix sockets.
        has_channelz: whether it also tells of the connections and calls of the process.
    """

    def __init__(
        self,
        handlers: Sequence[grpc.GenericRpcHandler],
        addresses: Sequence[str],
        options: TransportOptions,
        *,
        unix_mode: int,
        has_channelz: bool,
    ) -> None:
        self._server: Server = grpc.aio.server(options=options.channel_arguments())
        if has_channelz:
            channelz.add_channelz_servicer(self._server)
        self._server.add_generic_rpc_handlers(tuple(handlers))
        self._wanted = tuple(addresses)
        self._unix_mode = unix_mode
        self._sockets: list[_UnixSocket] = []
        self.addresses: tuple[str, ...] = ()
        """Where it listens, with real ports, once `start` has returned."""

    async def start(self) -> None:
        """Bind every address and serve.

        Raises:
            InvalidRequest: an address cannot be bound; the message names it.
        """
        self.addresses = tuple(self._bind(address) for address in self._wanted)
        await self._server.start()
        for unix in self._sockets:
            unix.publish()

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, let running ones finish for `grace_s`, then cut them."""
        await self._server.stop(grace_s)
        for unix in self._sockets:
            unix.remove()

    def _bind(self, address: str) -> str:
        target = address
        if address.startswith(_UNIX):
            try:
                unix = self._private_socket(Path(address.removeprefix(_UNIX)))
            except OSError as error:
                msg = f"cannot listen on {address}: {error.strerror}"
                raise InvalidRequest(msg) from error
            self._sockets.append(unix)
            target = f"{_UNIX}{unix.private}"
        try:
            check_bindable(target)
            port = self._server.add_insecure_port(target)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidRequest(f"cannot listen on {address}: {reason}") from error
        if address.startswith(_UNIX):
            return address
        host = address.rpartition(":")[0]
        return f"{host}:{port}"

    def _private_socket(self, public: Path) -> _UnixSocket:
        public.parent.mkdir(parents=True, exist_ok=True)
        _refuse_taken(public)
        private = public.with_name(f".{public.name}.{secrets.token_hex(4)}")
        return _UnixSocket(public, private, self._unix_mode)
