from __future__ import annotations

import json
from dataclasses import replace

import ctranslate2
import numpy as np
import pytest
from ctranslate2.specs.attention_spec import RotaryScalingType

from leptond.checkpoint import RotaryEmbedding, Seq2SeqCheckpoint
from leptond.errors import UnsupportedCapability
from leptond_ctranslate2.description import EngineDescription, ModelKind
from leptond_ctranslate2.importer import write_model, writing
from leptond_ctranslate2.importer.decoder import build_decoder, max_exact_positions
from leptond_ctranslate2.importer.int8_range import largest_int8
from leptond_ctranslate2.importer.model_file import ModelFile
from leptond_ctranslate2.importer.seq2seq import has_start_row
from leptond_ctranslate2.importer.weights import WeightReader
from leptond_ctranslate2.plugin import backend
from leptond_ctranslate2.precision import Precision

PRECISIONS = [precision.value for precision in Precision]


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("embedder", {"vocabulary.json", "head.json", "head.npz"}),
        ("t5-relu", {"shared_vocabulary.json"}),
        ("llama", {"vocabulary.json"}),
    ],
)
def test_an_import_writes_what_the_engine_and_the_sessions_need(written, name, files):
    found = {path.name for path in written(name).iterdir()}
    assert found == {"model.bin", "config.json", "engine.json"} | files


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["embedder", "marian"])
def test_the_engine_recognises_every_precision(written, name, precision):
    directory = written(name, precision)
    model = ModelFile(directory / "model.bin")
    types = {variable.type_name for variable in model.variables.values() if variable.shape}
    expected = {"int8", "float32"} if "int8" in precision else set()
    assert types == expected | {Precision(precision).float_type}
    assert ctranslate2.contains_model(str(directory))


def test_the_importer_offers_every_precision_and_the_exact_one_first():
    assert backend.importer.precisions[0] == "float32"
    assert sorted(backend.importer.precisions) == sorted(PRECISIONS)


@pytest.mark.parametrize(
    ("name", "kind", "max_positions", "max_answer"),
    [
        ("embedder", ModelKind.ENCODER, 48, 0),
        ("xlm-roberta-classifier", ModelKind.ENCODER, 64, 0),
        ("marian", ModelKind.TRANSLATOR, 64, 64),
        ("llama", ModelKind.GENERATOR, 256, 0),
    ],
)
def test_the_description_says_how_long_rows_may_be(written, name, kind, max_positions, max_answer):
    description = EngineDescription.read(written(name))
    assert description.kind is kind
    assert description.max_positions == max_positions
    assert description.max_answer_tokens == max_answer


def test_progress_grows_to_the_whole(tiny_checkpoints, tmp_path):
    seen = []
    write_model(
        tiny_checkpoints("t5-gated"),
        tmp_path,
        Precision.INT8,
        lambda stage, fraction: seen.append((stage, fraction)),
    )
    shares = [share for _, share in seen]
    assert {stage for stage, _ in seen} == {"weights"}
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1, abs=0.01)  # scalars are written without a word


def test_a_shared_matrix_is_stored_once(written):
    model = ModelFile(written("t5-relu") / "model.bin")
    source, target, head = (
        model.variables[name]
        for name in (
            "encoder/embeddings_0/weight",
            "decoder/embeddings/weight",
            "decoder/projection/weight",
        )
    )
    assert source.begin == target.begin == head.begin
    bias = "self_attention/relative_attention_bias"
    first, second = (model.variables[f"decoder/layer_{layer}/{bias}"] for layer in (0, 1))
    assert first.begin == second.begin


@pytest.mark.parametrize(("sets", "limit"), [(("avx2",), 64), (("avx2", "avx_vnni"), 127)])
def test_the_processor_decides_the_range_of_bytes(
    tiny_checkpoints, tmp_path, monkeypatch, sets, limit
):
    monkeypatch.setattr(writing, "instruction_sets", lambda: sets)
    facts = backend.importer.write(
        tiny_checkpoints("llama"), tmp_path, "int8", lambda stage, fraction: None
    )
    assert facts["int8_limit"] == limit
    assert facts["instruction_sets"] == list(sets)
    assert largest_int8(ModelFile(tmp_path / "model.bin")) == limit


def test_an_int8_decoder_is_no_good_default_and_says_so(tiny_checkpoints, tmp_path):
    for name, precision, is_advised in (
        ("llama", "int8", True),
        ("llama", "float32", False),
        ("embedder", "int8", False),
        ("marian", "int8", False),
    ):
        directory = tmp_path / f"{name}.{precision}"
        directory.mkdir()
        facts = backend.importer.write(
            tiny_checkpoints(name), directory, precision, lambda stage, fraction: None
        )
        assert ("advice" in facts) is is_advised
    assert "int8_limit" not in backend.importer.write(
        tiny_checkpoints("marian"), tmp_path, "bfloat16", lambda stage, fraction: None
    )


def test_a_token_that_only_starts_the_decoder_is_left_out(written, tiny_checkpoints):
    rows = tiny_checkpoints("marian").architecture.vocab_size
    directory = written("marian")
    model = ModelFile(directory / "model.bin")
    assert model.variables["decoder/projection/weight"].shape[0] == rows - 1
    assert model.values("decoder/start_from_zero_embedding") == 1
    assert EngineDescription.read(directory).vocab_size == rows - 1
    assert len(json.loads((directory / "shared_vocabulary.json").read_text())) == rows - 1


def test_a_start_token_that_could_be_an_answer_is_kept(tiny_checkpoints):
    marian = tiny_checkpoints("marian")
    last = marian.architecture.vocab_size - 1
    assert has_start_row(marian, [last])
    assert not has_start_row(marian, [])
    assert not has_start_row(tiny_checkpoints("t5-relu"), [0])


class NonZeroStart(Seq2SeqCheckpoint):
    """A checkpoint whose last row is an embedding like any other."""

    def __init__(self, checkpoint):
        self.architecture = checkpoint.architecture
        self._checkpoint = checkpoint

    def tensor(self, name):
        return self._checkpoint.tensor(name) + 1


def test_a_start_token_with_an_embedding_of_its_own_is_kept(tiny_checkpoints):
    marian = tiny_checkpoints("marian")
    assert not has_start_row(NonZeroStart(marian), [marian.architecture.vocab_size - 1])


def test_a_window_bounds_the_context(tiny_checkpoints):
    a = tiny_checkpoints("llama").architecture
    assert max_exact_positions(a) == 256
    assert max_exact_positions(replace(a, sliding_window=100)) == 100
    assert max_exact_positions(replace(a, sliding_window=1000)) == 256


@pytest.fixture
def attention(tiny_checkpoints):
    """The specification of a layer's attention with a given rotary embedding."""

    def built(precision="float32", **rotary):
        checkpoint = tiny_checkpoints("llama")
        weights = WeightReader(checkpoint, Precision(precision), 127, lambda num_bytes: None)
        embedding = RotaryEmbedding(10000.0, 16, **rotary)
        spec = build_decoder(replace(checkpoint.architecture, rotary=embedding), weights)
        return spec.decoder.layer[1].self_attention

    return built


FACTORS = (1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 8.0, 8.0)


def test_angles_are_plain_unless_they_are_scaled(attention):
    assert not hasattr(attention(), "rotary_scaling_type")
    scaled = attention("bfloat16", linear_factor=4.0)
    assert scaled.rotary_scaling_type == RotaryScalingType.Linear
    assert scaled.rotary_scaling_factor == 4


def test_frequency_factors_divide_and_so_does_a_linear_factor(attention):
    scaled = attention("int8", linear_factor=2.0, frequency_factors=FACTORS)
    assert scaled.rotary_scaling_type == RotaryScalingType.Su
    for factors in (scaled.rotary_scaling_long_factor, scaled.rotary_scaling_short_factor):
        np.testing.assert_array_equal(factors, [2, 2, 2, 2, 4, 4, 16, 16])


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8_bfloat16", "int8_float16"])
def test_frequency_factors_are_refused_where_the_engine_would_fail(attention, precision):
    with pytest.raises(UnsupportedCapability, match=f"frequency factors in {precision}"):
        attention(precision, frequency_factors=FACTORS)
