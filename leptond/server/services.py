"""Which methods there are, on which addresses, and who answers them.

Built once by the daemon. A method that our protos describe and that is not served yet is answered
by `CallRunner.fallback`, with its name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from leptond.errors import Forbidden
from leptond.server.calls import Call, CallRunner, StatusCodes
from leptond.server.status import STATUS_OF
from leptond.v1 import (
    classification_pb2,
    embedding_pb2,
    management_pb2,
    shared_memory_pb2,
    text_generation_service_pb2,
    translation_pb2,
)

__all__ = ["Behaviour", "Role", "Service", "generic_handlers"]

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
        codes: the status of every error.
    """

    name: str
    methods: Mapping[str, Behaviour]
    admin_methods: frozenset[str] = frozenset()
    pool: DescriptorPool | None = None
    codes: StatusCodes = field(default_factory=lambda: STATUS_OF)

    def descriptor(self) -> ServiceDescriptor:
        """The service as the pool describes it."""
        pool = descriptor_pool.Default() if self.pool is None else self.pool
        return pool.FindServiceByName(self.name)


def generic_handlers(
    services: list[Service], runner: CallRunner, role: Role
) -> list[grpc.GenericRpcHandler]:
    """Handlers for one role's server; the last one answers what no other does."""
    return [
        *(
            grpc.method_handlers_generic_handler(service.name, _handlers(service, runner, role))
            for service in services
        ),
        runner.fallback(described_methods(services)),
    ]


def described_methods(services: Iterable[Service]) -> set[str]:
    """Paths of every method of `leptond.v1` and of `services`, served or not."""
    found = {
        f"{service.name}/{method}"
        for service in services
        for method in service.descriptor().methods_by_name
    }
    for module in (
        classification_pb2,
        embedding_pb2,
        management_pb2,
        shared_memory_pb2,
        text_generation_service_pb2,
        translation_pb2,
    ):
        for service in module.DESCRIPTOR.services_by_name.values():
            found |= {f"{service.full_name}/{method.name}" for method in service.methods}
    return found


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
            codes=service.codes,
        )
    return handlers


async def _refuse(request: Any, call: Call) -> None:
    del request, call
    raise Forbidden("this method answers on administrative addresses only")
