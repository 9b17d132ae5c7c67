"""The messages of `grpc.health.v1`, in a descriptor pool of our own.

The package that has them is a dependency of the daemon, not of the light client, and two copies of
one proto in the default pool would exclude each other. Package, names and numbers are facts of the
protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from leptond_client.values import ServingStatus

__all__ = [
    "SERVICE",
    "STATUSES",
    "HealthCheckRequest",
    "HealthCheckResponse",
    "HealthListRequest",
    "HealthListResponse",
]

SERVICE = "grpc.health.v1.Health"
_PACKAGE = "grpc.health.v1"
_Field = descriptor_pb2.FieldDescriptorProto

STATUSES: Mapping[int, ServingStatus] = {
    0: ServingStatus.UNKNOWN,
    1: ServingStatus.SERVING,
    2: ServingStatus.NOT_SERVING,
    3: ServingStatus.SERVICE_UNKNOWN,
}
"""`HealthCheckResponse.ServingStatus` by number."""


def _field(
    name: str,
    number: int,
    kind: _Field.Type.ValueType,
    type_name: str = "",
    *,
    is_repeated: bool = False,
) -> descriptor_pb2.FieldDescriptorProto:
    label = _Field.LABEL_REPEATED if is_repeated else _Field.LABEL_OPTIONAL
    return _Field(name=name, number=number, type=kind, type_name=type_name or None, label=label)


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="grpc/health/v1/health.proto", package=_PACKAGE, syntax="proto3"
    )
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.append(_field("service", 1, _Field.TYPE_STRING))
    response = file.message_type.add(name="HealthCheckResponse")
    statuses = response.enum_type.add(name="ServingStatus")
    for number, status in STATUSES.items():
        statuses.value.add(name=status.name, number=number)
    status_type = f".{_PACKAGE}.HealthCheckResponse.ServingStatus"
    response.field.append(_field("status", 1, _Field.TYPE_ENUM, status_type))
    file.message_type.add(name="HealthListRequest")
    listing = file.message_type.add(name="HealthListResponse")
    entry = listing.nested_type.add(name="StatusesEntry")
    entry.options.map_entry = True
    entry.field.append(_field("key", 1, _Field.TYPE_STRING))
    response_type = f".{_PACKAGE}.HealthCheckResponse"
    entry.field.append(_field("value", 2, _Field.TYPE_MESSAGE, response_type))
    entry_type = f".{_PACKAGE}.HealthListResponse.StatusesEntry"
    listing.field.append(_field("statuses", 1, _Field.TYPE_MESSAGE, entry_type, is_repeated=True))
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_describe())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


HealthCheckRequest = _message("HealthCheckRequest")
HealthCheckResponse = _message("HealthCheckResponse")
HealthListRequest = _message("HealthListRequest")
HealthListResponse = _message("HealthListResponse")
