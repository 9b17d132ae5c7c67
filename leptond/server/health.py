"""`grpc.health.v1`: Check, Watch and List for the daemon, its services and its models.

Names: "" is the daemon, a service's full name is that service, anything else is a model as a
caller may write it. The package's own servicer has neither List nor names that come and go, so
this one is ours; its messages are the package's. On the event loop only; whoever hears of a
model's state on another thread posts it here through the bridge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from grpc_health.v1 import health_pb2

from leptond.errors import ModelNotFound
from leptond.server.calls import Call

__all__ = ["SERVICE", "HealthService"]

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_Status = int  # a value of HealthCheckResponse.ServingStatus
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_ListResponse: Any = vars(health_pb2)["HealthListResponse"]  # newer than its published types
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthService:
    """Status by name, and those who watch it.

    Args:
        services: full names of the services that the daemon offers.
        model_health: whether a model serves, by any name a caller may use; None when unknown.
        model_names: every name that `model_health` knows, for List.
    """

    def __init__(
        self,
        services: Iterable[str],
        model_health: Callable[[str], bool | None],
        model_names: Callable[[], Iterable[str]],
    ) -> None:
        self._services = frozenset(services) | {""}
        self._model_health = model_health
        self._model_names = model_names
        self._is_serving = False
        self._changed = asyncio.Event()

    def set_serving(self, *, is_serving: bool) -> None:
        """Say whether the daemon takes work: not before it is ready, nor while it drains."""
        self._is_serving = is_serving
        self.notify()

    def notify(self) -> None:
        """Something changed: every watcher looks again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def status(self, name: str) -> _Status | None:
        """The status of a name; None when nothing is called that."""
        if name in self._services:
            return _SERVING if self._is_serving else _NOT_SERVING
        serves = self._model_health(name)
        if serves is None:
            return None
        return _SERVING if serves and self._is_serving else _NOT_SERVING

    async def check(
        self, request: health_pb2.HealthCheckRequest, call: Call
    ) -> health_pb2.HealthCheckResponse:
        """One status; `ModelNotFound` (NOT_FOUND) for a name that nothing has."""
        status = self.status(request.service)
        if status is None:
            raise ModelNotFound(f"no service or model {request.service!r}", field="service")
        await call.commit()
        return health_pb2.HealthCheckResponse(status=status)

    async def list(self, request: Any, call: Call) -> Any:
        """Every name with its status."""
        del request
        await call.commit()
        response = _ListResponse()
        for name in (*self._services, *self._model_names()):
            status = self.status(name)
            if status is not None:
                response.statuses[name].status = status
        return response

    async def watch(self, request: health_pb2.HealthCheckRequest, call: Call) -> None:
        """The status now, and again whenever it changes, until the caller leaves."""
        await call.commit()
        last: _Status | None = None
        while True:
            changed = self._changed  # before the look, so that no change falls in between
            status = self.status(request.service)
            now = _SERVICE_UNKNOWN if status is None else status
            if now != last:
                await call.write(health_pb2.HealthCheckResponse(status=now))
                last = now
            await changed.wait()
