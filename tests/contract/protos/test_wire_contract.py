"""`leptond.v1` only grows, and the check that says so can fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from scripts import proto_contract
from scripts.proto_contract import (
    BASELINE,
    extend_baseline,
    find_broken_promises,
    format_facts,
    list_facts,
    load_descriptors,
    parse_facts,
)

METHODS = {
    "ClassificationService": ["Classify", "Rerank"],
    "EmbeddingService": ["Embed", "stream EmbedStream stream"],
    "ManagementService": [
        "ListModels",
        "LoadModel stream",
        "UnloadModel",
        "GetMemoryReport",
        "GetLoad",
        "Drain",
        "SetLogLevel",
    ],
    "SharedMemoryService": ["Lease", "Renew", "Release"],
    "TextGenerationService": [
        "Generate",
        "GenerateStream stream",
        "Chat",
        "ChatStream stream",
        "stream Converse stream",
        "Score",
        "Tokenize",
        "Detokenize",
    ],
    "TranslationService": ["Translate", "TranslateStream stream"],
}


def test_everything_published_still_holds() -> None:
    published = parse_facts(BASELINE.read_text(encoding="utf-8"))
    broken = find_broken_promises(published, list_facts(load_descriptors()))
    assert not broken, "leptond.v1 may only grow, but:\n" + "\n".join(broken)


def test_everything_new_is_published() -> None:
    published = parse_facts(BASELINE.read_text(encoding="utf-8"))
    new = list_facts(load_descriptors()).keys() - published.keys()
    assert not new, "run `python scripts/protos.py --baseline` for:\n" + "\n".join(sorted(new))


def test_the_services_have_the_methods_of_the_design() -> None:
    methods = {
        service.name: [
            "stream " * method.client_streaming + method.name + " stream" * method.server_streaming
            for method in service.method
        ]
        for file in load_descriptors()
        for service in file.service
    }
    assert methods == METHODS


SAMPLE = text_format.Parse(
    """
    name: "sample/v1/sample.proto"
    package: "sample.v1"
    syntax: "proto3"
    options { java_package: "sample.v1" }
    enum_type {
      name: "Kind"
      value { name: "KIND_UNSPECIFIED" number: 0 }
      value { name: "KIND_ROUND" number: 1 }
    }
    message_type {
      name: "Item"
      field { name: "count" number: 1 label: LABEL_OPTIONAL type: TYPE_UINT32 }
      field { name: "names" number: 2 label: LABEL_REPEATED type: TYPE_STRING }
      field {
        name: "limit" number: 3 label: LABEL_OPTIONAL type: TYPE_UINT32
        proto3_optional: true oneof_index: 1
      }
      field { name: "text" number: 4 label: LABEL_OPTIONAL type: TYPE_STRING oneof_index: 0 }
      field {
        name: "weights" number: 5 label: LABEL_REPEATED
        type: TYPE_MESSAGE type_name: ".sample.v1.Item.WeightsEntry"
      }
      field {
        name: "kind" number: 6 label: LABEL_OPTIONAL
        type: TYPE_ENUM type_name: ".sample.v1.Kind"
      }
      oneof_decl { name: "content" }
      oneof_decl { name: "_limit" }
      nested_type {
        name: "WeightsEntry"
        options { map_entry: true }
        field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_UINT32 }
        field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_FLOAT }
      }
      nested_type {
        name: "Part"
        field { name: "size" number: 1 label: LABEL_OPTIONAL type: TYPE_UINT32 }
      }
    }
    service {
      name: "ItemService"
      method { name: "Get" input_type: ".sample.v1.Item" output_type: ".sample.v1.Item" }
    }
    """,
    FileDescriptorProto(),
)


def field(file: FileDescriptorProto, name: str) -> FieldDescriptorProto:
    return next(field for field in file.message_type[0].field if field.name == name)


def lose_presence(file: FileDescriptorProto) -> None:
    limit = field(file, "limit")
    limit.ClearField("proto3_optional")
    limit.ClearField("oneof_index")


def test_facts_say_what_a_proto_says() -> None:
    assert format_facts(list_facts([SAMPLE])).splitlines() == [
        "sample/v1/sample.proto java_package: sample.v1",
        "sample.v1.Kind: enum in sample/v1/sample.proto",
        "sample.v1.Kind.KIND_UNSPECIFIED: 0",
        "sample.v1.Kind.KIND_ROUND: 1",
        "sample.v1.Item: message in sample/v1/sample.proto",
        "sample.v1.Item.count: 1 uint32",
        "sample.v1.Item.names: 2 repeated string",
        "sample.v1.Item.limit: 3 optional uint32",
        "sample.v1.Item.text: 4 oneof content string",
        "sample.v1.Item.weights: 5 map<uint32, float>",
        "sample.v1.Item.kind: 6 sample.v1.Kind",
        "sample.v1.Item.Part: message in sample/v1/sample.proto",
        "sample.v1.Item.Part.size: 1 uint32",
        "sample.v1.ItemService: service in sample/v1/sample.proto",
        "sample.v1.ItemService.Get: sample.v1.Item -> sample.v1.Item",
    ]


BREAKS: dict[str, tuple[Callable[[FileDescriptorProto], object], str]] = {
    "a field is removed": (lambda f: f.message_type[0].field.pop(0), "count: was `1 uint32`, is"),
    "a field is renumbered": (lambda f: setattr(field(f, "count"), "number", 9), "`9 uint32`"),
    "a field is renamed": (lambda f: setattr(field(f, "count"), "name", "num"), "count: was"),
    "a field is retyped": (lambda f: setattr(field(f, "count"), "type", 4), "`1 uint64`"),
    "a field is repeated": (lambda f: setattr(field(f, "count"), "label", 3), "repeated uint32"),
    "a field loses its presence": (lose_presence, "was `3 optional uint32`, is `3 uint32`"),
    "a field leaves its oneof": (
        lambda f: field(f, "text").ClearField("oneof_index"),
        "was `4 oneof content string`, is `4 string`",
    ),
    "a map's value is retyped": (
        lambda f: setattr(f.message_type[0].nested_type[0].field[1], "type", 1),
        "`5 map<uint32, double>`",
    ),
    "an enum value is removed": (lambda f: f.enum_type[0].value.pop(), "KIND_ROUND: was `1`, is"),
    "an enum value is renumbered": (
        lambda f: setattr(f.enum_type[0].value[1], "number", 2),
        "KIND_ROUND: was `1`, is `2`",
    ),
    "an enum is removed": (lambda f: f.enum_type.pop(), "Kind: was"),
    "a nested message is removed": (lambda f: f.message_type[0].nested_type.pop(), "Item.Part: "),
    "a message is removed": (lambda f: f.message_type.pop(), "Item: was"),
    "a type moves to another file": (
        lambda f: setattr(f, "name", "sample/v1/other.proto"),
        "is `message in sample/v1/other.proto`",
    ),
    "a method is removed": (lambda f: f.service[0].method.pop(), "ItemService.Get: was"),
    "a method starts to stream": (
        lambda f: setattr(f.service[0].method[0], "server_streaming", True),
        "`sample.v1.Item -> stream sample.v1.Item`",
    ),
    "a method changes its request": (
        lambda f: setattr(f.service[0].method[0], "input_type", ".sample.v1.Item.Part"),
        "`sample.v1.Item.Part -> sample.v1.Item`",
    ),
    "a package of another language changes": (
        lambda f: setattr(f.options, "java_package", "other.v1"),
        "java_package: was `sample.v1`, is `other.v1`",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_found_when(name: str) -> None:
    change, expected = BREAKS[name]
    changed = FileDescriptorProto()
    changed.CopyFrom(SAMPLE)
    change(changed)
    broken = find_broken_promises(list_facts([SAMPLE]), list_facts([changed]))
    assert any(expected in sentence for sentence in broken), broken


def grow(file: FileDescriptorProto) -> None:
    file.message_type[0].field.add(name="size", number=7, label=1, type=13)
    file.message_type.add(name="Other")
    file.enum_type[0].value.add(name="KIND_FLAT", number=2)
    file.service[0].method.add(
        name="Put", input_type=".sample.v1.Other", output_type=".sample.v1.Item"
    )


def test_growth_breaks_nothing() -> None:
    grown = FileDescriptorProto()
    grown.CopyFrom(SAMPLE)
    grow(grown)
    assert find_broken_promises(list_facts([SAMPLE]), list_facts([grown])) == []


@pytest.fixture
def baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "baseline.txt"
    path.write_text(format_facts(list_facts([SAMPLE])))
    monkeypatch.setattr(proto_contract, "BASELINE", path)
    return path


def test_the_baseline_takes_what_is_new(baseline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = FileDescriptorProto()
    grown.CopyFrom(SAMPLE)
    grow(grown)
    monkeypatch.setattr(proto_contract, "load_descriptors", lambda: [grown])
    assert extend_baseline() == 0
    assert parse_facts(baseline.read_text()) == list_facts([grown])


def test_the_baseline_keeps_what_was_published(
    baseline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = baseline.read_text()
    monkeypatch.setattr(proto_contract, "load_descriptors", lambda: [])
    assert extend_baseline() == 1
    assert baseline.read_text() == before
    assert "sample.v1.Item.count: was `1 uint32`, is gone" in capsys.readouterr().err
