"""What an encoder will take in memory, and what of its files is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from leptond.backend import ModelSource, SessionOptions
from leptond.checkpoint import open_checkpoint
from leptond.errors import InvariantViolation, ModelFailed, UnsupportedCapability
from leptond_onnxruntime import encoder_model
from leptond_onnxruntime.encoder_model import MAX_ROWS, EncoderModel
from leptond_onnxruntime.encoder_session import MAX_RUN_CELLS
from leptond_onnxruntime.importer.encoder_io import ENCODER_SPEC_FILE
from leptond_onnxruntime.plugin import backend
from tests.fixtures.tiny_models import vocabularies
from tests.fixtures.tiny_models.make import make_tiny_model
from tests.fixtures.tiny_onnx import POOLED, TinyOnnx


def ignore_progress(stage, fraction):
    """Nobody watches."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Directories of variants: the embedder in two precisions, and files of others."""
    home = tmp_path_factory.mktemp("encoders")
    checkpoint = open_checkpoint(make_tiny_model("embedder", home / "embedder"))
    for precision in ("float32", "int8"):
        (home / precision).mkdir()
        backend.importer.write(checkpoint, home / precision, precision, ignore_progress)
    words, vocab_size = vocabularies.word_piece()
    words.save(str(home / "tokenizer.json"))
    for name, tiny in {
        "pooled": TinyOnnx(vocab_size, [POOLED]),
        "float16": TinyOnnx(vocab_size, dtype=np.float16),
    }.items():
        (home / name).mkdir()
        file = tiny.write(home / f"{name}.onnx")
        backend.importer.import_ready(file, home / "tokenizer.json", home / name)
    return home


@pytest.fixture
def variant(written, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(written / "float32", tmp_path / "float32")


def estimate(directory, precision, max_tokens=0, num_slots=4):
    options = SessionOptions(num_slots, max_tokens)
    return backend.estimate_bytes(ModelSource(directory, precision), options)


@pytest.mark.parametrize(
    ("name", "precision", "longest"),
    [
        ("float32", "float32", 48),
        ("int8", "int8", 48),
        ("pooled", "float32", 64),
        ("float16", "float16", 64),
    ],
)
def test_an_estimate_holds_weights_and_one_run_whatever_the_rows(written, name, precision, longest):
    directory = written / name
    num_file_bytes = sum(file.stat().st_size for file in directory.iterdir())
    spec = json.loads((directory / ENCODER_SPEC_FILE).read_text())
    found = estimate(directory, precision)
    one_run = MAX_RUN_CELLS * 4 * (spec["hidden_size"] + spec["ffn_size"])
    assert found.weights_bytes > num_file_bytes + one_run
    assert found.slot_bytes == longest * 3 * 8
    assert estimate(directory, precision, num_slots=MAX_ROWS) == found
    assert estimate(directory, precision, max_tokens=10_000) == found


def test_shorter_rows_need_less(written):
    short, long = (estimate(written / "float32", "float32", length) for length in (8, 48))
    assert short.slot_bytes == 8 * 3 * 8
    # The scores of attention: of both copies, float32, each head and cell sees 40 fewer tokens.
    assert long.weights_bytes - short.weights_bytes == 2 * 4 * 4 * MAX_RUN_CELLS * 40


def test_files_of_another_precision_are_refused(written):
    with pytest.raises(ModelFailed, match="the variant says int8, its graph float32"):
        estimate(written / "float32", "int8")
    with pytest.raises(ModelFailed, match="the variant says float32, its graph int8"):
        backend.load(ModelSource(written / "int8", "float32"), ignore_progress)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not a readable graph description"),
        ("no json", "not a readable graph description"),
        ('{"format_version": 99}', "format 99, this version reads 1: import the model again"),
        ('{"format_version": 1}', "not a readable graph description"),
    ],
)
def test_a_damaged_description_is_refused(variant, content, message):
    (variant / ENCODER_SPEC_FILE).write_text(content)
    for call in (
        lambda: estimate(variant, "float32"),
        lambda: backend.load(ModelSource(variant, "float32"), ignore_progress),
    ):
        with pytest.raises(ModelFailed, match=message):
            call()


@pytest.mark.parametrize("name", ["head.json", "encoder.onnx", "weights.bin"])
def test_a_model_with_a_file_missing_is_not_loaded(variant, name):
    (variant / name).unlink()
    with pytest.raises(ModelFailed):
        backend.load(ModelSource(variant, "float32"), ignore_progress)


class Accelerator:
    """Stands in for a device that this machine lacks."""

    name = "cuda:0"


def test_encoders_run_on_the_processor_only(written, monkeypatch):
    monkeypatch.setattr(encoder_model, "find_device", lambda name: Accelerator())
    source = ModelSource(written / "float32", "float32", device="cuda:0")
    with pytest.raises(UnsupportedCapability, match="run on the cpu, not on cuda:0"):
        backend.load(source, ignore_progress)


def test_a_model_is_closed_after_its_sessions(written):
    source = ModelSource(written / "float32", "float32", options={"num_threads": 1})
    model = EncoderModel.load(source, ignore_progress)
    session = model.open_session(SessionOptions(num_slots=2, max_tokens=16))
    with pytest.raises(InvariantViolation, match="closed before its session"):
        model.close()
    session.shutdown()
    model.close()
    with pytest.raises(InvariantViolation, match="closed model was asked for a session"):
        model.open_session(SessionOptions(num_slots=2, max_tokens=16))
