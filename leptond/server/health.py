"""`grpc.health.v1`: Check, Watch and List for the daemon, its services and its models.

Names: "" is the daemon, a service's full name is that service, anything else is a model as a
caller may write it. The package's own servicer has neither List nor names that come and go, so
this one is ours; so is the description of its messages. On the event loop only; whoever hears of a
model's state on another thread posts it here through the bridge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from leptond.errors import ModelNotFound
from leptond.server.calls import Call
from leptond.server.health_messages import HealthCheckResponse, HealthListResponse

__all__ = ["HealthService"]

_Status = int  # a value of HealthCheckResponse.ServingStatus
_SERVING: _Status = HealthCheckResponse.SERVING
_NOT_SERVING: _Status = HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN: _Status = HealthCheckResponse.SERVICE_UNKNOWN


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

    async def check(self, request: Any, call: Call) -> Any:
        """One status; `ModelNotFound` (NOT_FOUND) for a name that nothing has."""
        status = self.status(request.service)
        if status is None:
            raise ModelNotFound(f"no service or model {request.service!r}", field="service")
        await call.commit()
        return HealthCheckResponse(status=status)

    async def list(self, request: Any, call: Call) -> Any:
        """Every name with its status."""
        del request
        await call.commit()
        response = HealthListResponse()
        for name in (*self._services, *self._model_names()):
            status = self.status(name)
            if status is not None:
                response.statuses[name].status = status
        return response

    async def watch(self, request: Any, call: Call) -> None:
        """The status now, and again whenever it changes, until the caller leaves."""
        await call.commit()
        last: _Status | None = None
        while True:
            changed = self._changed  # before the look, so that no change falls in between
            status = self.status(request.service)
            now = _SERVICE_UNKNOWN if status is None else status
            if now != last:
                await call.write(HealthCheckResponse(status=now))
                last = now
            await changed.wait()
