from __future__ import annotations

import ctypes

import numpy as np
import pytest

from leptond.errors import (
    BackendCrashed,
    BackendUnavailable,
    MemoryBudgetExceeded,
    UnsupportedCapability,
)
from leptond_onnxruntime.arena import ArenaLayout
from leptond_onnxruntime.device import CpuDevice, CudaDevice, CudaRuntime, find_device
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


LAYOUT = ArenaLayout.fitted(
    num_layers=1,
    num_slots=2,
    num_kv_heads=2,
    min_len=64,
    head_dim=32,
    dtype=np.dtype(np.float16),
)


def test_device_memory_that_is_not_there_is_refused_with_its_size():
    with pytest.raises(MemoryBudgetExceeded, match=f"cuda:0 has no {LAYOUT.num_bytes} bytes"):
        CudaDevice(0).open_arena(LAYOUT)


def test_an_arena_is_opened_with_the_library_of_the_engine(monkeypatch):
    device = CudaDevice(3)
    monkeypatch.setattr(device, "ort_type", "cpu")
    monkeypatch.setattr(device, "ort_index", 0)
    monkeypatch.setattr(CudaRuntime, "loaded", lambda index: FakeLibrary().as_runtime(index))
    arena = device.open_arena(LAYOUT)
    assert arena.layout is LAYOUT
    assert arena.resident_bytes() == LAYOUT.num_bytes
    arena.close()


def test_a_process_without_the_cuda_runtime_says_so():
    with pytest.raises(BackendUnavailable, match="runtime library is not loaded"):
        CudaRuntime.loaded(0)


class FakeLibrary:
    """The three functions of the CUDA runtime, on addresses of this process."""

    def __init__(self, code=0):
        self.code = code
        self.calls = []

    def as_runtime(self, index):
        return CudaRuntime(self, index)

    def cudaSetDevice(self, index):
        self.calls.append(("device", index))
        return self.code

    def cudaMemcpy2D(self, *call):
        target, target_pitch, source, source_pitch, width, height, kind = call
        assert kind == 3  # cudaMemcpyDeviceToDevice
        for line in range(height):
            ctypes.memmove(target + line * target_pitch, source + line * source_pitch, width)
        return self.code

    def cudaDeviceSynchronize(self):
        self.calls.append(("wait",))
        return self.code


def test_a_strided_copy_goes_through_the_runtime_on_the_right_device():
    library = FakeLibrary()
    runtime = library.as_runtime(2)
    rows = np.arange(24, dtype=np.uint8).reshape(4, 6)
    target = np.zeros((4, 6), np.uint8)
    runtime.copy(target.ctypes.data, rows.ctypes.data, pitch=6, width=2, height=4)
    runtime.wait()
    assert (target[:, :2] == rows[:, :2]).all()
    assert (target[:, 2:] == 0).all()
    assert library.calls == [("device", 2), ("wait",)]


def test_a_cuda_error_in_a_copy_is_a_crash_with_its_code():
    runtime = FakeLibrary(code=700).as_runtime(0)
    with pytest.raises(BackendCrashed, match="cudaSetDevice failed with CUDA error 700"):
        runtime.copy(0, 0, pitch=0, width=0, height=0)
    with pytest.raises(BackendCrashed, match="cudaDeviceSynchronize failed"):
        runtime.wait()
