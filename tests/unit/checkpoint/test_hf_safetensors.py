from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from leptond.checkpoint.safetensors_file import SafetensorsFile
from leptond.errors import InvalidRequest, UnsupportedCapability


def write(path: Path, header: Any, data: bytes = b"", *, size: int | None = None) -> Path:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded) if size is None else size) + encoded + data)
    return path


def entry(dtype: str, shape: list[Any], begin: Any, end: Any) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_floats_of_every_width_come_as_float32(tmp_path, dtype):
    values = np.linspace(-3, 3, 12, dtype=dtype).reshape(3, 4)
    save_file({"a": values, "b": np.ones((), dtype)}, tmp_path / "m.safetensors", {"format": "pt"})
    file = SafetensorsFile(tmp_path / "m.safetensors")
    assert file.tensors.keys() == {"a", "b"}
    assert file.tensors["a"].shape == (3, 4)
    np.testing.assert_array_equal(file.read("a"), values.astype(np.float32))
    assert file.read("a").dtype == np.float32
    assert file.read("b") == 1


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path):
    values = np.array([1.0, -2.5, 0.0, 3e38, 1e-30], np.float32)
    upper = (values.view(np.uint32) >> 16).astype("<u2")
    path = write(tmp_path / "m.safetensors", entry("BF16", [5], 0, 10), upper.tobytes())
    expected = (upper.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(SafetensorsFile(path).read("w"), expected)


def test_values_at_odd_offsets_come_aligned(tmp_path):
    values = np.arange(4, dtype=np.float32)
    header = json.dumps(entry("F32", [4], 0, 16)).encode()
    header += b" " * (1 + (-len(header)) % 4)
    got = SafetensorsFile(write(tmp_path / "m.safetensors", header, values.tobytes())).read("w")
    assert got.flags.aligned
    np.testing.assert_array_equal(got, values)


def test_whole_numbers_are_listed_and_not_read(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"position_ids": np.arange(4)}, path)
    file = SafetensorsFile(path)
    assert file.tensors["position_ids"].dtype == "I64"
    with pytest.raises(UnsupportedCapability, match="'position_ids' holds I64"):
        file.read("position_ids")


def test_quantised_elements_are_refused_by_name(tmp_path):
    path = write(tmp_path / "m.safetensors", entry("F8_E4M3", [4], 0, 4), bytes(4))
    with pytest.raises(UnsupportedCapability, match="'w' has the element type F8_E4M3"):
        SafetensorsFile(path)
    entries = {"w": {"dtype": [], "shape": [4], "data_offsets": [0, 4]}}
    with pytest.raises(UnsupportedCapability, match=r"'w' has the element type \[\]"):
        SafetensorsFile(write(path, entries, bytes(4)))


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (entry("F32", [2], 0, 8), bytes(4), "truncated: tensor 'w' runs to byte 8"),
        (entry("F32", [2], 0, 4), bytes(8), "4 bytes for F32"),
        (entry("F32", [-2, -1], 0, 8), bytes(8), "whole numbers"),
        (entry("F32", [2.0], 0, 8), bytes(8), "whole numbers"),
        (entry("F32", [2], -8, 0), bytes(8), "whole numbers"),
        (entry("F32", [2], "0", 8), bytes(8), "whole numbers"),
        ({"w": {"dtype": "F32", "shape": [2]}}, bytes(8), "a field is missing"),
        (
            {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0]}},
            bytes(8),
            "a field is missing",
        ),
        ({"w": 3}, b"", "a field is missing"),
        ([1], b"", "no object"),
        (b"{", b"", "not JSON"),
        (b"[" * 100_000, b"", "not JSON"),
    ],
)
def test_a_damaged_header_is_told_with_the_file(tmp_path, header, data, message):
    path = write(tmp_path / "m.safetensors", header, data)
    with pytest.raises(InvalidRequest, match=message) as caught:
        SafetensorsFile(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("size", [1 << 62, 5_000])
def test_a_header_that_is_longer_than_the_file_is_refused(tmp_path, size):
    with pytest.raises(InvalidRequest, match=f"a header of {size} bytes"):
        SafetensorsFile(write(tmp_path / "m.safetensors", {}, size=size))


@pytest.mark.parametrize(("content", "message"), [(b"", "empty"), (b"1234", "no header")])
def test_a_file_that_is_too_short_is_refused(tmp_path, content, message):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=message):
        SafetensorsFile(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidRequest, match=r"m\.safetensors: No such file"):
        SafetensorsFile(tmp_path / "m.safetensors")
