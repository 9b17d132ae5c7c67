from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

import leptond.v1
from leptond.v1 import chat_pb2, generation_pb2, sampling_pb2, translation_pb2

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.iter_modules(leptond.v1.__path__, "leptond.v1.")
    if module.name.endswith("_pb2")
]
MESSAGES = [m for module in MODULES for m in module.DESCRIPTOR.message_types_by_name.values()]


def scalar(field: FieldDescriptor) -> object:
    """Return a value of the field's type that is not its default."""
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    return {
        FieldDescriptor.CPPTYPE_STRING: b"\xff" if field.type == field.TYPE_BYTES else "é",
        FieldDescriptor.CPPTYPE_BOOL: True,
        FieldDescriptor.CPPTYPE_DOUBLE: 0.5,
        FieldDescriptor.CPPTYPE_FLOAT: 0.5,
    }.get(field.cpp_type, 7)


def fill(descriptor: Descriptor) -> Message:
    """Return a message with every field set; of a oneof, its last."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        target = getattr(message, field.name)
        nested = field.message_type
        if nested is not None and nested.GetOptions().map_entry:
            target[scalar(nested.fields[0])] = scalar(nested.fields[1])
        elif field.is_repeated:
            target.extend([fill(nested) if nested is not None else scalar(field)] * 2)
        elif nested is not None and nested.file.package == "leptond.v1":
            target.CopyFrom(fill(nested))
        elif nested is not None:
            target.SetInParent()
        else:
            setattr(message, field.name, scalar(field))
    return message


@pytest.mark.parametrize("descriptor", MESSAGES, ids=lambda descriptor: descriptor.name)
def test_a_full_message_survives_the_wire_and_json(descriptor: Descriptor) -> None:
    message = fill(descriptor)
    assert type(message).FromString(message.SerializeToString()) == message
    assert json_format.Parse(json_format.MessageToJson(message), type(message)()) == message


@pytest.mark.parametrize(
    ("unary", "stream"),
    [
        (generation_pb2.GenerateRequest, generation_pb2.GenerateStreamRequest),
        (chat_pb2.ChatRequest, chat_pb2.ChatStreamRequest),
        (translation_pb2.TranslateRequest, translation_pb2.TranslateStreamRequest),
    ],
)
def test_a_unary_request_is_a_streamed_one_on_the_wire(
    unary: type[Message], stream: type[Message]
) -> None:
    def fields(message: type[Message]) -> Iterator[tuple[int, str, object]]:
        for field in message.DESCRIPTOR.fields:
            yield field.number, field.name, field.message_type or field.type

    assert set(fields(unary)) <= set(fields(stream))


@pytest.mark.parametrize(
    "name",
    [
        field.name
        for field in sampling_pb2.SamplingParams.DESCRIPTOR.fields
        if field.name in {"temperature", "top_p", "top_k", "min_p", "seed", "max_tokens"}
        or field.name.endswith("_penalty")
    ],
)
def test_zero_is_told_from_unset_in(name: str) -> None:
    params = sampling_pb2.SamplingParams()
    assert name not in {field.name for field, _ in params.ListFields()}
    setattr(params, name, 0)
    parsed = sampling_pb2.SamplingParams.FromString(params.SerializeToString())
    assert [field.name for field, _ in parsed.ListFields()] == [name]


def test_a_streamed_token_is_small() -> None:
    piece = generation_pb2.GenerateStreamResponse(
        chunk=generation_pb2.TokenChunk(
            text=" hello", token_ids=[28_120], token_bytes=[b" hello"], token_offset=100
        )
    )
    assert len(piece.SerializeToString()) <= 28
