"""The messages of `grpc.health.v1`, in a pool of our own, with `List` whatever the package has.

The health package before 1.85 lacks `List`, and 1.85 needs protobuf 7, so that under protobuf 6 the
method has to be described here. Names and numbers are facts of the protocol.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2

__all__ = ["POOL", "SERVICE", "HealthCheckResponse", "HealthListResponse"]

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_PACKAGE = health_pb2.DESCRIPTOR.package
_Field = descriptor_pb2.FieldDescriptorProto


def _describe() -> descriptor_pb2.FileDescriptorProto:
    """The package's own description, completed if it is an old one."""
    file = descriptor_pb2.FileDescriptorProto()
    health_pb2.DESCRIPTOR.CopyToProto(file)
    if any(message.name == "HealthListResponse" for message in file.message_type):
        return file
    file.message_type.add(name="HealthListRequest")
    listing = file.message_type.add(name="HealthListResponse")
    entry = listing.nested_type.add(name="StatusesEntry")
    entry.options.map_entry = True
    optional, repeated = _Field.LABEL_OPTIONAL, _Field.LABEL_REPEATED
    entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=optional)
    entry.field.add(
        name="value",
        number=2,
        type=_Field.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.HealthCheckResponse",
        label=optional,
    )
    listing.field.add(
        name="statuses",
        number=1,
        type=_Field.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.HealthListResponse.StatusesEntry",
        label=repeated,
    )
    file.service[0].method.add(
        name="List",
        input_type=f".{_PACKAGE}.HealthListRequest",
        output_type=f".{_PACKAGE}.HealthListResponse",
    )
    return file


POOL = descriptor_pool.DescriptorPool()
POOL.Add(_describe())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


HealthCheckResponse = _message("HealthCheckResponse")
HealthListResponse = _message("HealthListResponse")
