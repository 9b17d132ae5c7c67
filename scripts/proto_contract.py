"""What `leptond.v1` promises on the wire and to generated code, and how that may change.

Within `v1` what was once published stays: names, numbers, types, presence, the file of each type
and its package in other languages. New things may be added. What has been published, a fact a line,
is the baseline; `python scripts/protos.py --baseline` adds to it and refuses to change it.

Called by `scripts/protos.py` and by the contract tests.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

BASELINE = Path(__file__).resolve().parent.parent / "tests/fixtures/protos/leptond_v1.txt"

Facts = Mapping[str, str]
"""Full name of a thing to what is promised of it."""


def load_descriptors() -> list[FileDescriptorProto]:
    """Return the descriptors inside the stubs of `leptond.v1`."""
    package = importlib.import_module("leptond.v1")
    files = []
    for module in pkgutil.iter_modules(package.__path__, "leptond.v1."):
        if module.name.endswith("_pb2"):
            file = FileDescriptorProto()
            importlib.import_module(module.name).DESCRIPTOR.CopyToProto(file)
            files.append(file)
    return files


def list_facts(files: Iterable[FileDescriptorProto]) -> dict[str, str]:
    """Return everything that `files` promise."""
    return dict(fact for file in files for fact in _file(file))


def _file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for option, value in file.options.ListFields():
        yield f"{file.name} {option.name}", str(value)
    for enum in file.enum_type:
        yield from _enum(enum, file.package, file.name)
    for message in file.message_type:
        yield from _message(message, file.package, file.name)
    for service in file.service:
        yield from _service(service, file.package, file.name)


def _enum(enum: EnumDescriptorProto, scope: str, place: str) -> Iterator[tuple[str, str]]:
    name = f"{scope}.{enum.name}"
    yield name, f"enum in {place}"
    for value in enum.value:
        yield f"{name}.{value.name}", str(value.number)


def _message(message: DescriptorProto, scope: str, place: str) -> Iterator[tuple[str, str]]:
    name = f"{scope}.{message.name}"
    yield name, f"message in {place}"
    maps = {
        f".{name}.{entry.name}": "map<{}, {}>".format(*map(_type, entry.field))
        for entry in message.nested_type
        if entry.options.map_entry
    }
    for field in message.field:
        words = [str(field.number)]
        if field.proto3_optional:
            words.append("optional")
        elif field.HasField("oneof_index"):
            words.append(f"oneof {message.oneof_decl[field.oneof_index].name}")
        elif field.label == FieldDescriptorProto.LABEL_REPEATED and field.type_name not in maps:
            words.append("repeated")
        words.append(maps.get(field.type_name) or _type(field))
        yield f"{name}.{field.name}", " ".join(words)
    for nested in message.nested_type:
        if not nested.options.map_entry:
            yield from _message(nested, name, place)
    for enum in message.enum_type:
        yield from _enum(enum, name, place)


def _type(field: FieldDescriptorProto) -> str:
    """Return a field's type as it is spelled in a proto."""
    if field.type_name:
        return field.type_name.removeprefix(".")
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _service(service: ServiceDescriptorProto, scope: str, place: str) -> Iterator[tuple[str, str]]:
    name = f"{scope}.{service.name}"
    yield name, f"service in {place}"
    for method in service.method:
        request = "stream " * method.client_streaming + method.input_type.removeprefix(".")
        response = "stream " * method.server_streaming + method.output_type.removeprefix(".")
        yield f"{name}.{method.name}", f"{request} -> {response}"


def find_broken_promises(published: Facts, current: Facts) -> list[str]:
    """Return a sentence for each published fact that no longer holds; empty when all do."""
    return [
        f"{name}: was `{promised}`, is {f'`{current[name]}`' if name in current else 'gone'}"
        for name, promised in published.items()
        if current.get(name) != promised
    ]


def format_facts(facts: Facts) -> str:
    """Return `facts` as the text of a baseline."""
    return "".join(f"{name}: {promised}\n" for name, promised in facts.items())


def parse_facts(text: str) -> dict[str, str]:
    """Return the facts of a baseline's text."""
    return dict(line.split(": ", 1) for line in text.splitlines())


def extend_baseline() -> int:
    """Add what is new to the baseline; return 1, without writing, when a promise is broken."""
    current = list_facts(load_descriptors())
    published = parse_facts(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    if broken := find_broken_promises(published, current):
        print("\n".join(broken), file=sys.stderr)
        print("leptond.v1 may only grow: the baseline is left as it is", file=sys.stderr)
        return 1
    BASELINE.write_text(format_facts(current), encoding="utf-8")
    print(f"{BASELINE.name}: {len(current)} facts, {len(current) - len(published)} of them new")
    return 0
