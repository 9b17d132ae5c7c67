from __future__ import annotations

import pytest

from leptond.errors import BackendUnavailable, UnsupportedCapability
from leptond_onnxruntime.device import CpuDevice, CudaDevice, find_device
from leptond_onnxruntime.importer import Precision


def test_the_cpu_takes_every_precision_and_outlives_every_error():
    device = find_device("cpu")
    assert isinstance(device, CpuDevice)
    for precision in Precision:
        device.check_precision(precision)
    device.check_providers(["CPUExecutionProvider"])
    assert not device.is_fatal("CUDA failure 700: an illegal memory access")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:x", "cuda:-1", "CPU", "cuda:0 "])
def test_an_unknown_device_is_named(name):
    with pytest.raises(BackendUnavailable, match="neither cpu nor cuda:N"):
        find_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1"])
def test_cuda_is_refused_by_a_build_without_it(name, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendUnavailable, match=rf"device {name} needs the CUDAExecutionProvider"):
        find_device(name)


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:3", 3)])
def test_cuda_is_found_by_a_build_that_has_it(name, index, monkeypatch):
    monkeypatch.setattr(
        "onnxruntime.get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    device = find_device(name)
    assert device.name == f"cuda:{index}"
    assert (device.ort_type, device.ort_index) == ("cuda", index)
    assert device.providers[0] == ("CUDAExecutionProvider", {"device_id": index})


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.INT8])
def test_cuda_refuses_every_precision_but_float16_by_name(precision):
    CudaDevice(0).check_precision(Precision.FLOAT16)
    with pytest.raises(UnsupportedCapability, match=precision):
        CudaDevice(0).check_precision(precision)


def test_a_session_that_fell_back_to_the_cpu_is_refused():
    CudaDevice(0).check_providers(["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(BackendUnavailable, match="fell back to CPUExecutionProvider"):
        CudaDevice(0).check_providers(["CPUExecutionProvider"])


def test_a_cuda_failure_is_fatal_and_a_lack_of_memory_is_not():
    device = CudaDevice(0)
    assert device.is_fatal("CUDA failure 700: an illegal memory access was encountered")
    assert not device.is_fatal("CUDA failure 2: out of memory")
    assert not device.is_fatal("Got invalid dimensions for input: grid")


def test_an_arena_on_a_device_without_its_runtime_is_refused():
    from leptond_onnxruntime.device import CudaRuntime

    with pytest.raises(BackendUnavailable, match="runtime library is not loaded"):
        CudaRuntime(0)
