from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from leptond.backend import Backend, SessionOptions, StepRow
from leptond.errors import BackendUnavailable, ModelFailed
from leptond_onnxruntime.importer import Precision
from leptond_onnxruntime.model import OnnxModel
from leptond_onnxruntime.plugin import backend
from tests.unit.leptond_onnxruntime.engine.conftest import ignore_progress

OPTIONS = SessionOptions(num_slots=4, max_tokens=128)


@pytest.fixture
def broken_source(tiny_source, tmp_path):
    """A copy of the tiny model, to be damaged."""
    source = tiny_source()
    directory = tmp_path / "copy"
    shutil.copytree(source.directory, directory)
    return replace(source, directory=directory)


def test_it_describes_the_engine_and_the_processor():
    description = backend.describe()
    assert description["version"].count(".") == 2
    assert "CPUExecutionProvider" in description["providers"]
    assert int(description["cores"]) >= 1
    assert {"cpu", "instruction_sets"} <= set(description)


def test_it_is_a_backend():
    typed: Backend = backend
    assert typed.name == "onnxruntime"
    assert typed.importer is not None


def test_an_import_says_where_it_was_made(tiny_source):
    facts = json.loads((tiny_source().directory / "graph.json").read_text())
    assert facts["instruction_sets"] == sorted(facts["instruction_sets"])


@pytest.mark.parametrize("precision", list(Precision))
def test_an_estimate_holds_the_weights_and_every_token_of_a_slot(tiny_source, precision):
    source = tiny_source(precision)
    estimate = backend.estimate_bytes(source, OPTIONS)
    size = sum(file.stat().st_size for file in source.directory.iterdir())
    assert estimate.weights_bytes > size
    itemsize = 2 if precision is Precision.FLOAT16 else 4
    assert estimate.slot_bytes == 2 * 2 * 2 * 128 * 16 * itemsize


def test_an_estimate_for_a_device_counts_whole_slots(tiny_source):
    source = tiny_source(Precision.FLOAT16)
    on_device = backend.estimate_bytes(replace(source, device="cuda:0"), OPTIONS)
    assert on_device.slot_bytes > backend.estimate_bytes(source, OPTIONS).slot_bytes


def test_a_load_reports_its_progress(tiny_source):
    seen = []
    backend.load(tiny_source(), lambda stage, fraction: seen.append((stage, fraction))).close()
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


@pytest.mark.parametrize("name", ["body.onnx", "head.onnx", "weights.bin", "graph.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_file_fails_the_load_by_name(broken_source, name, damage):
    path = broken_source.directory / name
    if damage == "missing":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ModelFailed, match=str(broken_source.directory)):
        backend.load(broken_source, ignore_progress)


@pytest.mark.parametrize("name", ["body.onnx", "head.onnx", "graph.json"])
def test_a_file_that_is_something_else_fails_the_load_by_name(broken_source, name):
    (broken_source.directory / name).write_bytes(b"this is no model" * 100)
    with pytest.raises(ModelFailed, match=str(broken_source.directory / name)):
        backend.load(broken_source, ignore_progress)


def test_a_variant_of_another_precision_than_its_graphs_is_refused(tiny_source):
    source = replace(tiny_source(), precision="int8")
    with pytest.raises(ModelFailed, match="the variant says int8, its graphs float32"):
        backend.load(source, ignore_progress)


def test_a_wrong_option_fails_the_load_by_name(tiny_source):
    with pytest.raises(ModelFailed, match="unknown option of the onnxruntime backend: cores"):
        backend.load(replace(tiny_source(), options={"cores": 2}), ignore_progress)


@pytest.mark.parametrize("spin_us", [0, 20])
def test_threads_may_spin_or_not(tiny_source, spin_us):
    options = {"num_threads": 2, "spin_us": spin_us}
    model = OnnxModel.load(replace(tiny_source(), options=options), ignore_progress)
    session = model.open_session(OPTIONS)
    assert np.isfinite(session.step([StepRow(session.open(), [5, 6])]).logits).all()
    session.shutdown()
    model.close()


def test_a_device_that_is_not_there_is_said_plainly(tiny_source, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    source = replace(tiny_source(Precision.FLOAT16), device="cuda:0")
    with pytest.raises(BackendUnavailable, match="cuda:0 needs the CUDAExecutionProvider"):
        backend.load(source, ignore_progress)
