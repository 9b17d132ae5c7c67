from __future__ import annotations

import json
import sys

import pytest

from leptond.backend.processor import cpu_model, instruction_sets
from leptond.checkpoint import open_checkpoint
from leptond.errors import BackendUnavailable, ModelFailed, UnsupportedCapability
from leptond_onnxruntime.importer import GraphSpec, Precision, import_decoder
from tests.fixtures.tiny_gguf import write_tiny_llama


def test_a_variant_is_four_files(import_tiny):
    names = sorted(path.name for path in import_tiny().directory.iterdir())
    assert names == ["body.onnx", "graph.json", "head.onnx", "weights.bin"]


@pytest.mark.parametrize("precision", list(Precision))
def test_the_description_says_what_a_session_must_know(import_tiny, precision):
    imported = import_tiny(precision)
    spec = GraphSpec.read(imported.directory)
    assert spec == imported.spec
    assert spec.precision is precision
    assert (spec.vocab_size, spec.num_layers, spec.hidden_size) == (300, 2, 64)
    assert (spec.num_kv_heads, spec.head_dim, spec.max_positions) == (2, 16, 128)
    assert spec.num_candidates == 64
    assert spec.cpu_model == cpu_model()
    assert spec.instruction_sets == instruction_sets()


def test_two_imports_are_equal_byte_for_byte(import_tiny, tmp_path):
    first = import_tiny(Precision.INT8)
    again = tmp_path / "again"
    again.mkdir()
    import_decoder(open_checkpoint(first.source), again, Precision.INT8, lambda *_: None)
    for path in first.directory.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_progress_rises_to_the_whole(import_tiny):
    progress = import_tiny().progress
    shares = [share for _, share in progress]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert ("layer 2 of 2", 0.75) in progress


def test_what_lies_in_the_directory_already_is_not_overwritten(import_tiny, tmp_path):
    (tmp_path / "float32").mkdir()
    (tmp_path / "float32" / "weights.bin").write_bytes(b"precious")
    source = write_tiny_llama(tmp_path / "m.gguf")
    with pytest.raises(FileExistsError):
        import_decoder(
            open_checkpoint(source), tmp_path / "float32", Precision.FLOAT32, lambda *_: None
        )
    assert (tmp_path / "float32" / "weights.bin").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ({"head_dim": 24}, r"m\.gguf: a head size of 24 is not supported: multiples of 16"),
        (
            {"head_dim": 32, "metadata": {"llama.rope.dimension_count": 8}},
            r"m\.gguf: a rotary size of 8 is not supported: multiples of 16",
        ),
    ],
)
def test_sizes_that_attention_does_not_take_are_refused(import_tiny, differences, message):
    with pytest.raises(UnsupportedCapability, match=message):
        import_tiny(**differences)


def test_without_the_onnx_package_the_extra_is_named(import_tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendUnavailable, match=r"leptond\[import\]"):
        import_tiny()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-10],
        lambda text: "[]",
        lambda text: json.dumps({"format_version": 1}),
        lambda text: text.replace("float32", "float33"),
        lambda text: text.replace('"num_layers"', '"num_sheets"'),
    ],
)
def test_a_damaged_description_is_named(import_tiny, damage):
    directory = import_tiny().directory
    path = directory / "graph.json"
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ModelFailed, match=r"graph\.json: not a readable graph description"):
        GraphSpec.read(directory)


def test_a_description_of_another_format_asks_for_a_new_import(import_tiny):
    directory = import_tiny().directory
    path = directory / "graph.json"
    text = path.read_text(encoding="utf-8").replace('"format_version": 1', '"format_version": 2')
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelFailed, match="format 2, this version reads 1: import the model again"):
        GraphSpec.read(directory)


def test_a_missing_description_is_named(tmp_path):
    with pytest.raises(ModelFailed, match=r"graph\.json"):
        GraphSpec.read(tmp_path)
