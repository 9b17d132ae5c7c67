"""Server reflection, v1 and v1alpha, over the descriptor pools of every dialect.

The two versions differ in nothing but their package name, and a package name is not on the wire:
one servicer, with the v1alpha messages of the reflection package, answers under both names. Each
service is described from the pool that it lives in, since compatible dialects have pools of their
own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2 import (
    ErrorResponse,
    ExtensionNumberResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

from leptond.server.calls import Call

__all__ = ["SERVICES", "ReflectionService"]

_ALPHA_SERVICE = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].full_name
_ALPHA = reflection_pb2.DESCRIPTOR.package
_STABLE = "grpc.reflection.v1"
SERVICES = (_ALPHA_SERVICE, _ALPHA_SERVICE.replace(_ALPHA, _STABLE))


class ReflectionService:
    """Answers what services there are and what their messages look like.

    Args:
        pools: the pool in which each service is described, by the service's full name. The
            reflection services themselves are added here.
    """

    def __init__(self, pools: Mapping[str, DescriptorPool]) -> None:
        own = {SERVICES[0]: descriptor_pool.Default(), SERVICES[1]: _stable_pool()}
        self._services = {**pools, **own}
        self._pools = list(dict.fromkeys(self._services.values()))

    def pool_of(self, service: str) -> DescriptorPool:
        """The pool that describes `service`."""
        return self._services[service]

    async def info(self, requests: AsyncIterator[ServerReflectionRequest], call: Call) -> None:
        """`ServerReflectionInfo`: one answer per question, in order."""
        await call.commit()
        async for request in requests:
            response = self._answer(request)
            # Through bytes: v1 and v1alpha are one format and two classes.
            response.original_request.MergeFromString(request.SerializeToString())
            response.valid_host = request.host
            await call.write(response)

    def _answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        try:
            match request.WhichOneof("message_request"):
                case "list_services":
                    names = [ServiceResponse(name=name) for name in sorted(self._services)]
                    response = ServerReflectionResponse(
                        list_services_response=ListServiceResponse(service=names)
                    )
                case "file_by_filename":
                    response = _files(self._file_by_name(request.file_by_filename))
                case "file_containing_symbol":
                    response = _files(self._file_of_symbol(request.file_containing_symbol))
                case "file_containing_extension":
                    asked = request.file_containing_extension
                    file = self._file_of_extension(asked.containing_type, asked.extension_number)
                    response = _files(file)
                case "all_extension_numbers_of_type":
                    response = self._extension_numbers(request.all_extension_numbers_of_type)
                case _:
                    response = _error(grpc.StatusCode.INVALID_ARGUMENT, "the request asks nothing")
        except KeyError:
            response = _error(grpc.StatusCode.NOT_FOUND, "nothing is described under that name")
        return response

    def _file_by_name(self, name: str) -> FileDescriptor:
        for pool in self._pools:
            with suppress(KeyError):
                return pool.FindFileByName(name)
        raise KeyError(name)

    def _file_of_symbol(self, symbol: str) -> FileDescriptor:
        own = self._services.get(symbol)
        for pool in self._pools if own is None else [own]:
            with suppress(KeyError):
                return pool.FindFileContainingSymbol(symbol)
        raise KeyError(symbol)

    def _file_of_extension(self, type_name: str, number: int) -> FileDescriptor:
        for pool in self._pools:
            with suppress(KeyError):
                extended = pool.FindMessageTypeByName(type_name)
                extension: Any = pool.FindExtensionByNumber(extended, number)
                file: FileDescriptor = extension.file  # the published types lack it
                return file
        raise KeyError(type_name)

    def _extension_numbers(self, type_name: str) -> ServerReflectionResponse:
        numbers: set[int] | None = None
        for pool in self._pools:
            with suppress(KeyError):
                extensions = pool.FindAllExtensions(pool.FindMessageTypeByName(type_name))
                numbers = (numbers or set()) | {extension.number for extension in extensions}
        if numbers is None:
            raise KeyError(type_name)
        return ServerReflectionResponse(
            all_extension_numbers_response=ExtensionNumberResponse(
                base_type_name=type_name, extension_number=sorted(numbers)
            )
        )


def _files(file: FileDescriptor) -> ServerReflectionResponse:
    """The file and everything that it imports, so that one answer is enough."""
    return ServerReflectionResponse(
        file_descriptor_response=FileDescriptorResponse(
            file_descriptor_proto=[one.serialized_pb for one in _closure(file, set())]
        )
    )


def _closure(file: FileDescriptor, seen: set[str]) -> Iterator[FileDescriptor]:
    if file.name in seen:
        return
    seen.add(file.name)
    yield file
    for dependency in file.dependencies:
        yield from _closure(dependency, seen)


def _error(code: grpc.StatusCode, message: str) -> ServerReflectionResponse:
    return ServerReflectionResponse(
        error_response=ErrorResponse(error_code=code.value[0], error_message=message)
    )


def _stable_pool() -> DescriptorPool:
    """A pool that describes the v1 service: the v1alpha file under the other package name."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.package = _STABLE
    file.name = "grpc/reflection/v1/reflection.proto"
    for message in file.message_type:
        for field in message.field:
            if field.HasField("type_name"):
                field.type_name = field.type_name.replace(_ALPHA, _STABLE)
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(_ALPHA, _STABLE)
        method.output_type = method.output_type.replace(_ALPHA, _STABLE)
    pool = DescriptorPool()
    pool.Add(file)
    return pool
