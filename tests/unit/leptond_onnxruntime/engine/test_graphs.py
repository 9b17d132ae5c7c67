from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from leptond.backend import SessionOptions, StepRow
from leptond.errors import BackendCrashed, BackendFault
from leptond_onnxruntime.device import CpuDevice, CudaDevice
from leptond_onnxruntime.graphs import Binding


class FakeOrtSession:
    """Notes what is bound, and fails runs with `error`, if there is one."""

    def __init__(self, error=None):
        self.error = error
        self.bound = []

    def io_binding(self):
        return self

    def bind_cpu_input(self, name, array):
        self.bound.append(name)

    def bind_output(self, name, *place):
        self.bound.append(name)

    def bind_input(self, name, device, index, *place):
        self.bound.append((name, device, index, place[-1]))

    def run_with_iobinding(self, binding):
        if self.error is not None:
            raise self.error


def test_on_the_cpu_an_array_is_bound_once():
    session = FakeOrtSession()
    binding = Binding(session, CpuDevice())
    ids, hidden = np.zeros(3), np.zeros(2)
    for _ in range(3):
        binding.feed("ids", ids)
        binding.fill("hidden", hidden)
    assert session.bound == ["ids", "hidden"]
    binding.feed("ids", np.zeros(3))
    binding.fill("hidden", np.zeros(2))
    assert session.bound == ["ids", "hidden", "ids", "hidden"]


def test_on_a_device_an_input_is_copied_every_time_and_an_output_bound_once():
    session = FakeOrtSession()
    binding = Binding(session, CudaDevice(0))
    ids, hidden = np.zeros(3), np.zeros(2)
    for _ in range(3):
        binding.feed("ids", ids)
        binding.fill("hidden", hidden)
    assert session.bound.count("ids") == 3
    assert session.bound.count("hidden") == 1


def test_shared_memory_is_bound_on_the_device():
    session = FakeOrtSession()
    Binding(session, CudaDevice(2)).share("past", "present", 4096, (1, 2), np.dtype(np.float16))
    assert session.bound[0] == ("past", "cuda", 2, 4096)
    assert "present" in session.bound


@pytest.mark.parametrize(
    ("device", "message", "expected"),
    [
        (CpuDevice(), "Non-zero status code", BackendFault),
        (CudaDevice(0), "Non-zero status code", BackendFault),
        (CudaDevice(0), "CUDA failure 2: out of memory", BackendFault),
        (CudaDevice(0), "CUDA failure 719: unspecified launch failure", BackendCrashed),
    ],
)
def test_an_engine_error_becomes_a_fault_or_a_crash(device, message, expected):
    binding = Binding(FakeOrtSession(RuntimeError(message)), device)
    with pytest.raises(expected, match=message) as raised:
        binding.run()
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_decoding_on_the_cpu_binds_nothing_anew(tiny_model, monkeypatch):
    session = tiny_model.open_session(SessionOptions(4, 64))
    slots = [session.open() for _ in range(4)]
    bound = []
    for method in ("bind_cpu_input", "bind_input", "bind_output"):
        plain = getattr(ort.IOBinding, method)

        def noted(self, name, *place, plain=plain):
            bound.append(name)
            return plain(self, name, *place)

        monkeypatch.setattr(ort.IOBinding, method, noted)
    for step in range(4):
        session.step([StepRow(slot, [5 + step]) for slot in slots])
        num_bound, bound[:] = len(bound), []
        assert (num_bound == 0) == (step > 0)
    session.shutdown()
