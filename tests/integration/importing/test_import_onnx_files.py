"""Encoders on ONNX Runtime: of a checkpoint beside the other engine, and an ONNX file as it is."""

from __future__ import annotations

import json
import shutil

import pytest

from leptond.backend.registry import get_backend
from leptond.checkpoint import EncoderDefaults, read_encoder_defaults
from leptond.errors import InvalidRequest
from leptond.models import Store
from leptond.models.importing import ImportOptions, import_variants
from leptond.models.measuring import measure_encoders
from leptond.types import Task
from tests.fixtures.tiny_models.make import make_tiny_model
from tests.fixtures.tiny_onnx import HIDDEN, POOLED, TinyOnnx


@pytest.fixture
def store(tmp_path):
    return Store([tmp_path / "store"])


@pytest.fixture
def embedder(tmp_path):
    return make_tiny_model("embedder", tmp_path / "embedder")


@pytest.fixture
def exported(tmp_path, embedder):
    """An ONNX file with its weights beside it, and the tokenizer elsewhere."""
    own = bring(embedder, Store([tmp_path / "own"]), backend="onnxruntime", precision="float32")
    directory = tmp_path / "exported"
    directory.mkdir()
    for name in ("encoder.onnx", "weights.bin"):
        shutil.copy(own.directory / name, directory)
    return directory / "encoder.onnx", own.directory.parent / "tokenizer.json"


def bring(source, store, **options):
    (imported,) = import_variants(
        str(source), store, ImportOptions(**options), progress=lambda stage, fraction: None
    )
    return imported


@pytest.mark.needs("ctranslate2")
def test_two_engines_serve_one_encoder_and_are_compared(store, embedder):
    assert str(bring(embedder, store).name) == "embedder:float32"
    for precision in ("float32", "int8"):
        other = bring(embedder, store, backend="onnxruntime", precision=precision)
        assert str(other.name) == f"embedder:{precision}-onnxruntime"
    first, *others = measure_encoders(
        store.find("embedder"), get_backend, lambda stage, fraction: None
    )
    assert (first.name, first.backend) == ("embedder:float32", "ctranslate2")
    assert [(one.backend, one.reference, one.problem) for one in others] == [
        ("onnxruntime", first.name, "")
    ] * 2
    assert [one.name for one in others] == [
        "embedder:float32-onnxruntime",
        "embedder:int8-onnxruntime",
    ]
    assert others[0].cosine > 0.9999
    assert others[1].cosine > 0.98


def test_an_onnx_file_is_taken_over_with_its_tokenizer(store, exported):
    file, tokenizer = exported
    with pytest.raises(InvalidRequest, match="is in the format of onnxruntime, which has no tok"):
        bring(file, store)
    imported = bring(file, store, tokenizer=tokenizer, pooling="cls")
    assert str(imported.name) == "encoder:float32"
    variant = store.find("encoder").variants["float32"]
    assert variant.backend == "onnxruntime"
    assert variant.tasks == {Task.EMBED, Task.RERANK}
    defaults = read_encoder_defaults(variant.assets)
    assert isinstance(defaults, EncoderDefaults)
    assert defaults.pooling == "cls"
    assert not bring(file, store, tokenizer=tokenizer, pooling="cls").is_new


def test_other_weights_beside_the_same_graph_are_another_version(store, exported):
    file, tokenizer = exported
    assert bring(file, store, tokenizer=tokenizer).version == 1
    weights = bytearray((file.parent / "weights.bin").read_bytes())
    weights[0] ^= 1  # the last bit of a number
    (file.parent / "weights.bin").write_bytes(weights)
    assert bring(file, store, tokenizer=tokenizer).version == 2
    (file.parent / "weights.bin").unlink()
    with pytest.raises(InvalidRequest, match=r"weights\.bin is missing beside it"):
        bring(file, store, tokenizer=tokenizer)


def test_a_directory_leads_to_the_onnx_file_in_it(store, exported):
    file, _ = exported
    with pytest.raises(InvalidRequest, match=r"encoder\.onnx is in the format of onnxruntime"):
        bring(file.parent, store)


def test_what_is_refused_leaves_nothing_in_the_store(store, exported, tmp_path):
    file, tokenizer = exported
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidRequest, match="Model missing"):
        bring(file, store, tokenizer=tmp_path / "tokenizer.json")
    (tokenizer.parent / "tokenizer_config.json").write_text('{"model_max_length": 500}')
    with pytest.raises(InvalidRequest, match="does not take 500 tokens"):
        bring(file, store, tokenizer=tokenizer)
    assert list(store.directories[0].iterdir()) == []


@pytest.mark.parametrize("outputs", [[POOLED], [HIDDEN]])
def test_a_file_of_either_output_comes_with_its_weights_and_is_measured(store, exported, outputs):
    _, tokenizer = exported
    file = tokenizer.with_name("tiny.onnx")
    vocab_size = len(json.loads(tokenizer.read_text())["model"]["vocab"])
    TinyOnnx(vocab_size, outputs).write(file, weights="tiny.onnx_data")
    imported = bring(file, store, tokenizer=tokenizer)
    assert sorted(path.name for path in imported.directory.iterdir()) == [
        "encoder.onnx", "encoder_graph.json", "head.json", "head.npz", "tiny.onnx_data",
        "variant.toml",
    ]  # fmt: skip
    (measured,) = measure_encoders(store.find("tiny"), get_backend, lambda stage, fraction: None)
    assert (measured.name, measured.problem) == ("tiny:float32", "")
