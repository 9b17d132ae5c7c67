from __future__ import annotations

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
