from __future__ import annotations

import ctranslate2
import pytest

from leptond.errors import BackendUnavailable, UnsupportedCapability
from leptond_ctranslate2.device import find_device, list_devices
from leptond_ctranslate2.precision import Precision


def test_the_processor_is_always_there():
    device = find_device("cpu")
    assert device.name == "cpu"
    assert Precision.FLOAT32 in device.precisions
    assert device in list_devices()


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"])
def test_another_name_is_no_device(name):
    with pytest.raises(BackendUnavailable, match="neither cpu nor cuda:N"):
        find_device(name)


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_gpu_is_found_by_its_number(monkeypatch, name, index):
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 2)
    device = find_device(name)
    assert (device.kind, device.index, device.name) == ("cuda", index, f"cuda:{index}")
    assert len(list_devices()) == 3


def test_a_gpu_that_is_not_there_is_said_plainly(monkeypatch):
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 0)
    with pytest.raises(BackendUnavailable, match=r"cuda:0 is not there: .* sees 0 CUDA devices"):
        find_device("cuda:0")


def test_a_type_that_would_be_widened_is_refused_with_what_is_supported(monkeypatch):
    types = {"float32", "int8", "int8_float32", "int16"}
    monkeypatch.setattr(ctranslate2, "get_supported_compute_types", lambda kind, index: types)
    device = find_device("cpu")
    device.check(Precision.INT8)
    with pytest.raises(
        UnsupportedCapability,
        match="does not compute bfloat16 efficiently on device cpu; "
        "it supports float32, int8, int8_float32 there",
    ):
        device.check(Precision.BFLOAT16)
