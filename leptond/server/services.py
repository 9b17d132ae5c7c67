"""Which methods there are, on which addresses, and who answers them.

Built once by the daemon. A service that is described by our protos but not served yet answers
UNIMPLEMENTED by itself: gRPC does that for every method that has no handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from leptond.errors import Forbidden
from leptond.server.calls import Call, CallRunner

__all__ = ["Role", "Service", "generic_handlers"]

Behaviour = Callable[[Any, Call], Awaitable[Any]]


class Role(StrEnum):
    """What an address is for: PUBLIC answers everything but administration."""

    PUBLIC = "public"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Service:
    """One gRPC service: its name and its methods.

    Attributes:
        name: full name, as in the protos.
        methods: behaviour by the proto's method name.
        admin_methods: names of the methods that only administrators' addresses answer.
        pool: where it is described.
    """

    name: str
    methods: Mapping[str, Behaviour]
    admin_methods: frozenset[str] = frozenset()
    pool: DescriptorPool | None = None

    def descriptor(self) -> ServiceDescriptor:
        """The service as the pool describes it."""
        pool = descriptor_pool.Default() if self.pool is None else self.pool
        return pool.FindServiceByName(self.name)


def generic_handlers(
    services: list[Service], runner: CallRunner, role: Role
) -> list[grpc.GenericRpcHandler]:
    """Handlers for one role's server."""
    return [
        grpc.method_handlers_generic_handler(service.name, _handlers(service, runner, role))
        for service in services
    ]


def _handlers(
    service: Service, runner: CallRunner, role: Role
) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    described = service.descriptor().methods_by_name
    handlers = {}
    for name, behaviour in service.methods.items():
        method = described[name]
        is_refused = role is Role.PUBLIC and name in service.admin_methods
        handlers[name] = runner.handler(
            service.name,
            name,
            _refuse if is_refused else behaviour,
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
            request_streaming=method.client_streaming,
            response_streaming=method.server_streaming,
        )
    return handlers


async def _refuse(request: Any, call: Call) -> None:
    del request, call
    raise Forbidden("this method answers on administrative addresses only")
