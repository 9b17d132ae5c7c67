from __future__ import annotations

import struct
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from leptond.checkpoint.gguf_file import GgufFile
from leptond.errors import (
    BackendUnavailable,
    InvalidRequest,
    LeptondError,
    UnsupportedCapability,
)


def write(path: Path, *, endianess=gguf.GGUFEndian.LITTLE, kinds=(Kind.F32, Kind.Q8_0)) -> Path:
    writer = gguf.GGUFWriter(path, "llama", endianess=endianess)
    writer.add_bool("a.flag", val=True)
    writer.add_array("a.flags", [True, False])
    writer.add_uint8("a.small", 200)
    writer.add_int64("a.negative", -5)
    writer.add_float64("a.double", 0.1)
    writer.add_array("a.words", ["un", "déux", ""])
    writer.add_array("a.numbers", [1, 2, 3])
    data = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    for kind in kinds:
        writer.add_tensor(f"t.{kind.name}", gguf.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "m.gguf")


def test_metadata_comes_as_python_values(path):
    metadata = GgufFile(path).metadata
    assert metadata["a.flag"] is True
    assert metadata["a.flags"] == [True, False]
    assert metadata["a.small"] == 200
    assert metadata["a.negative"] == -5
    assert metadata["a.double"] == 0.1
    assert metadata["a.words"] == ["un", "déux", ""]
    assert metadata["a.numbers"] == [1, 2, 3]


def test_tensors_equal_those_of_the_gguf_package(tmp_path):
    kinds = [Kind.F32, Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0]
    path = write(tmp_path / "m.gguf", kinds=kinds)
    file = GgufFile(path)
    assert len(file.tensors) == len(kinds)
    for tensor in gguf.GGUFReader(path).tensors:
        values = file.read(tensor.name)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, gguf.dequantize(tensor.data, tensor.tensor_type))


def test_a_file_cut_anywhere_is_one_clear_error(path, tmp_path):
    whole = path.read_bytes()
    short = tmp_path / "short.gguf"
    # GGUF pads the end of the last tensor; what is lost there is lost by nobody.
    end = max(tensor.end for tensor in GgufFile(path).tensors.values())
    for length in range(end):
        short.write_bytes(whole[:length])
        with pytest.raises(InvalidRequest) as caught:
            GgufFile(short)
        assert str(short) in caught.value.message
        assert "\n" not in caught.value.message


def test_a_truncated_tensor_is_named(path, tmp_path):
    short = tmp_path / "short.gguf"
    short.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidRequest, match=r"short\.gguf: truncated: tensor 't\.Q8_0' runs to"):
        GgufFile(short)


def test_damaged_bytes_never_raise_anything_but_our_errors(path, tmp_path):
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    damaged_path = tmp_path / "damaged.gguf"
    messages: list[str] = []
    for _ in range(600):
        damaged = bytearray(whole)
        for position in rng.integers(0, 600, 3):
            damaged[position] = rng.integers(0, 256)
        damaged_path.write_bytes(damaged)
        try:
            file = GgufFile(damaged_path)
        except LeptondError as error:
            messages.append(error.message)
        else:
            for name in file.tensors:
                file.read(name)
    assert len(messages) > 100
    assert all(str(damaged_path) in message for message in messages)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"PK\x03\x04" + bytes(100), "not a GGUF file: it begins with b'PK"),
        (b"GGUF" + (1).to_bytes(4, "little") + bytes(100), "GGUF version 0x1"),
    ],
)
def test_other_files_are_told_apart(tmp_path, content, message):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(LeptondError, match=message):
        GgufFile(path)


def test_big_endian_files_are_refused(tmp_path):
    path = write(tmp_path / "m.gguf", endianess=gguf.GGUFEndian.BIG, kinds=[Kind.F32])
    with pytest.raises(UnsupportedCapability, match="little-endian"):
        GgufFile(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidRequest, match=r"none\.gguf: No such file"):
        GgufFile(tmp_path / "none.gguf")


def test_an_element_type_without_floats_is_refused_by_name(tmp_path):
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("t", np.zeros((2, 2), np.int16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedCapability, match="tensor 't' has the element type I16"):
        GgufFile(path)


def test_without_the_gguf_package_the_extra_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(BackendUnavailable, match=r"leptond\[import\]"):
        GgufFile(path)


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def key(name: str, type_id: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", type_id) + value


def tensor(name: str, dimensions: list[int], type_id: int) -> bytes:
    count = len(dimensions)
    return string(name) + struct.pack(f"<I{count}QIQ", count, *dimensions, type_id, 0)


UINT32, ARRAY, F32, Q8_0 = 4, 9, 0, 8


@pytest.mark.parametrize(
    ("keys", "tensors", "message"),
    [
        ([key("k", 99, b"")], [], "metadata key 'k': unknown value type 99"),
        ([key("k", ARRAY, struct.pack("<IQ", 9, 1))], [], "metadata key 'k': arrays of arrays"),
        ([key("k", UINT32, bytes(4))] * 2, [], "metadata key 'k' occurs twice"),
        ([key("k", ARRAY, struct.pack("<IQ", UINT32, 2**61))], [], "truncated: metadata key 'k'"),
        (
            [key("general.alignment", UINT32, struct.pack("<I", 24))],
            [],
            "general.alignment: 24 is not a power of two",
        ),
        ([], [tensor("t", [4], F32)] * 2, "tensor 't' occurs twice"),
        ([], [tensor("t", [1] * 5, F32)], "tensor 't' has 5 dimensions"),
        ([], [tensor("t", [], F32)], "tensor 't' has 0 dimensions"),
        ([], [tensor("t", [4], 999)], "tensor 't' has the unknown element type 999"),
        ([], [tensor("t", [40], Q8_0)], "tensor 't': rows of 40 elements are not whole Q8_0"),
        ([], [tensor("t", [2**40, 2**40], F32)], "truncated: tensor 't'"),
    ],
)
def test_contradictions_in_the_header_are_named(tmp_path, keys, tensors, message):
    path = tmp_path / "m.gguf"
    counts = struct.pack("<IQQ", 3, len(tensors), len(keys))
    path.write_bytes(b"GGUF" + counts + b"".join(keys + tensors) + bytes(4096))
    with pytest.raises(LeptondError) as caught:
        GgufFile(path)
    assert caught.value.message.startswith(f"{path}: {message}")
