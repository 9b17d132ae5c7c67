"""The plug-in against the conformance suite, on tiny models made here, in every precision.

Tiny models have small logits, so the tolerances for `int8` and `float16` are far below those of a
real model; `tests/integration/engine` measures these.
"""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

import numpy as np
import onnxruntime as ort
import pytest

from leptond.backend import ModelSource
from leptond.backend.conformance import StepSessionConformance
from leptond.backend.conformance.step_suite import filled
from leptond.checkpoint import open_checkpoint
from leptond_onnxruntime.device import CudaArena, CudaDevice
from leptond_onnxruntime.graphs import Graph
from leptond_onnxruntime.importer import GraphSpec, Precision
from leptond_onnxruntime.importer.graph_io import BODY_FILE, HEAD_FILE
from leptond_onnxruntime.model import OnnxModel
from leptond_onnxruntime.options import EngineOptions
from leptond_onnxruntime.plugin import backend
from tests.fixtures.tiny_gguf import TinyLlama, write_tiny_llama


def write_variant(home, precision, **differences):
    """Import a tiny model as the daemon would, and say where it lies."""
    gguf = write_tiny_llama(home / "tiny.gguf", TinyLlama(**differences))
    directory = home / precision
    directory.mkdir()
    checkpoint = open_checkpoint(gguf)
    backend.importer.write(checkpoint, directory, precision, lambda stage, fraction: None)
    return ModelSource(directory, precision, options={"num_threads": 1})


@pytest.fixture(scope="class")
def model(request, tmp_path_factory):
    """The tiny model of a test class: its `precision` and its `differences`."""
    source = write_variant(
        tmp_path_factory.mktemp("tiny"), request.cls.precision, **request.cls.differences
    )
    model = backend.load(source, lambda stage, fraction: None)
    yield model
    model.close()


class Suite(StepSessionConformance):
    precision: Precision
    differences: ClassVar[dict[str, Any]] = {}


class TestFloat32(Suite):
    precision = Precision.FLOAT32


class TestFloat32WithEightSlotsAndAHeadOfItsOwn(Suite):
    precision = Precision.FLOAT32
    num_slots = 8
    seed = 1
    differences: ClassVar[dict[str, Any]] = {
        "is_tied": False,
        "has_biases": True,
        "vocab_size": 5000,
    }


class TestFloat32WithSlotsThatAreNoWholePages(Suite):
    precision = Precision.FLOAT32
    differences: ClassVar[dict[str, Any]] = {
        "num_kv_heads": 1,
        "num_heads": 3,
        "head_dim": 48,
        "hidden_size": 96,
    }


class TestFloat32WithASlidingWindow(Suite):
    precision = Precision.FLOAT32
    differences: ClassVar[dict[str, Any]] = {"metadata": {"llama.attention.sliding_window": 8}}


class TestInt8(Suite):
    precision = Precision.INT8
    logit_tolerance = 0.1


class TestFloat16(Suite):
    precision = Precision.FLOAT16
    logit_tolerance = 0.05


class MemcpyInPlaceOfCuda:
    """`StridedCopy` on addresses of this process."""

    def copy(self, target, source, pitch, width, height):
        for line in range(height):
            ctypes.memmove(target + line * pitch, source + line * pitch, width)

    def wait(self):
        pass


class CudaOnTheCpu(CudaDevice):
    """Everything that differs on CUDA, but for the kernels and where the memory lies."""

    ort_type = "cpu"

    def __init__(self):
        super().__init__(0)
        self.providers = ("CPUExecutionProvider",)

    def check_providers(self, actual):
        pass

    def open_arena(self, layout):
        memory = ort.OrtValue.ortvalue_from_shape_and_type([layout.num_bytes], np.uint8, "cpu", 0)
        return CudaArena(layout, memory, MemcpyInPlaceOfCuda())


class TestFloat16OnADeviceOfItsOwnMemory(Suite):
    precision = Precision.FLOAT16
    logit_tolerance = 0.05

    @pytest.fixture
    def model(self, tmp_path):
        source = write_variant(tmp_path, self.precision)
        device = CudaOnTheCpu()
        body, head = (
            Graph.open(source.directory / file, device, EngineOptions(num_threads=1))
            for file in (BODY_FILE, HEAD_FILE)
        )
        model = OnnxModel(GraphSpec.read(source.directory), body, head, device)
        yield model
        model.close()

    def test_memory_comes_back_when_slots_are_closed(self, model, session):
        """Device memory has no pages: it is there in full, until the session ends."""
        before = session.resident_bytes()
        session.close(filled(session, self.texts(model, [self.max_tokens])[0]))
        assert session.resident_bytes() == before > 0
        session.shutdown()
        assert session.resident_bytes() == 0
