from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from leptond.checkpoint import expected_shapes, open_checkpoint
from leptond.errors import InvalidRequest, LeptondError, UnsupportedCapability
from tests.fixtures.tiny_gguf import TinyLlama, write_tiny_llama


def test_facts_of_a_plain_model(open_tiny):
    facts = open_tiny().architecture
    assert facts.family == "llama"
    assert (facts.vocab_size, facts.num_layers, facts.hidden_size) == (300, 2, 64)
    assert (facts.num_heads, facts.num_kv_heads, facts.head_dim) == (4, 2, 16)
    assert (facts.ffn_size, facts.max_positions) == (96, 128)
    assert facts.norm_epsilon == pytest.approx(1e-5)
    assert facts.attention_scale == 0.25
    assert facts.sliding_window is None
    assert facts.has_tied_embedding
    assert not facts.has_attention_bias
    assert not facts.has_attention_output_bias
    assert not facts.has_ffn_bias
    assert (facts.rotary.theta, facts.rotary.dim) == (10_000.0, 16)
    assert (facts.rotary.linear_factor, facts.rotary.frequency_factors) == (1.0, None)


def test_facts_that_change_the_arithmetic_are_read(open_tiny):
    facts = open_tiny(
        is_tied=False,
        has_biases=True,
        frequency_factors=(1, 1, 2, 2, 4, 4, 8, 8),
        metadata={
            "llama.attention.sliding_window": 32,
            "llama.attention.scale": 0.5,
            "llama.rope.scaling.type": "linear",
            "llama.rope.scaling.factor": 4.0,
        },
    ).architecture
    assert not facts.has_tied_embedding
    assert facts.has_attention_bias
    assert facts.has_attention_output_bias
    assert facts.has_ffn_bias
    assert facts.rotary.frequency_factors == (1, 1, 2, 2, 4, 4, 8, 8)
    assert facts.rotary.linear_factor == 4.0
    assert facts.sliding_window == 32
    assert facts.attention_scale == 0.5


def test_every_expected_tensor_is_there_in_its_shape(open_tiny):
    checkpoint = open_tiny(is_tied=False, has_biases=True)
    shapes = expected_shapes(checkpoint.architecture)
    assert len(shapes) == 3 + 2 * (2 + 7 * 2)
    for name, shape in shapes.items():
        assert checkpoint.tensor(name).shape == shape


def test_query_and_key_rows_come_in_half_split_order(tmp_path):
    path = write_tiny_llama(tmp_path / "m.gguf", TinyLlama(has_biases=True))
    checkpoint = open_checkpoint(path)
    stored = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}
    for part, num_heads in (("q", 4), ("k", 2)):
        for kind in ("weight", "bias"):
            rows = stored[f"blk.1.attn_{part}.{kind}"]
            pairs = rows.reshape(num_heads, 8, 2, *rows.shape[1:])
            expected = pairs.swapaxes(1, 2).reshape(rows.shape)
            got = checkpoint.tensor(f"layers.1.attention.{part}.{kind}")
            np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(
        checkpoint.tensor("layers.1.attention.v.weight"), stored["blk.1.attn_v.weight"]
    )


def test_rows_that_are_not_rotated_keep_their_place(tmp_path):
    model = TinyLlama(head_dim=32, metadata={"llama.rope.dimension_count": 16})
    path = write_tiny_llama(tmp_path / "m.gguf", model)
    stored = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}
    rows = stored["blk.0.attn_q.weight"].reshape(4, 32, 64)
    got = open_checkpoint(path).tensor("layers.0.attention.q.weight").reshape(4, 32, 64)
    np.testing.assert_array_equal(got[:, :8], rows[:, 0:16:2])
    np.testing.assert_array_equal(got[:, 8:16], rows[:, 1:16:2])
    np.testing.assert_array_equal(got[:, 16:], rows[:, 16:])


def test_an_unknown_tensor_name_is_a_key_error(open_tiny):
    with pytest.raises(KeyError):
        open_tiny().tensor("layers.0.attention.q.bias")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.expert_count", 8),
        ("llama.attention.clamp_kqv", 8.0),
        ("llama.attention.causal", False),
        ("llama.final_logit_softcapping", 30.0),
        ("llama.logit_scale", 0.5),
        ("llama.rope.scaling.type", "yarn"),
        ("llama.rope.scaling.type", "longrope"),
        ("llama.rope.scaling.attn_factor", 1.5),
        ("llama.rope.dimension_count", 7),
        ("llama.rope.dimension_count", 32),
        ("llama.attention.value_length", 8),
        ("llama.attention.head_count_kv", 3),
        ("llama.something_new", 1),
    ],
)
def test_what_is_not_supported_is_refused_by_file_and_key(open_tiny, key, value):
    with pytest.raises(UnsupportedCapability) as caught:
        open_tiny(metadata={key: value})
    assert "m.gguf: " + key in caught.value.message
    assert repr(value) in caught.value.message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.expert_count", 0),
        ("llama.attention.clamp_kqv", 0.0),
        ("llama.attention.causal", True),
        ("llama.rope.scaling.type", "none"),
        ("llama.rope.scaling.factor", 0.0),
        ("llama.attention.sliding_window", 0),
        ("llama.vocab_size", 300),
    ],
)
def test_a_feature_that_is_switched_off_changes_nothing(open_tiny, key, value):
    plain = open_tiny().architecture
    assert open_tiny(metadata={key: value}).architecture == plain


def test_linear_scaling_under_its_old_name_is_read(open_tiny):
    architecture = open_tiny(metadata={"llama.rope.scale_linear": 2.0}).architecture
    assert architecture.rotary.linear_factor == 2.0


@pytest.mark.parametrize(
    "key",
    [
        "llama.block_count",
        "llama.context_length",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.model",
        "tokenizer.ggml.pre",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.merges",
    ],
)
def test_a_missing_key_is_named(open_tiny, key):
    with pytest.raises(InvalidRequest, match=rf"m\.gguf: {key} is missing"):
        open_tiny(metadata={key: None})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.block_count", "two"),
        ("llama.block_count", True),
        ("llama.block_count", 0),
        ("llama.block_count", [1, 2]),
        ("llama.rope.freq_base", "high"),
        ("tokenizer.ggml.tokens", "abc"),
        ("tokenizer.ggml.tokens", [1, 2]),
        ("tokenizer.ggml.token_type", [1, 2]),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(open_tiny, key, value):
    with pytest.raises(InvalidRequest, match=rf"m\.gguf: {key}: "):
        open_tiny(metadata={key: value})


@pytest.mark.parametrize("name", ["token_embd.weight", "blk.1.ffn_up.weight", "output_norm.weight"])
def test_a_missing_tensor_is_named(open_tiny, name):
    with pytest.raises(InvalidRequest, match=rf"m\.gguf: tensor '{name}' is missing"):
        open_tiny(without=(name,))


def test_a_tensor_of_another_shape_is_named(open_tiny):
    with pytest.raises(InvalidRequest, match=r"tensor 'blk\.0\.ffn_gate\.weight' has shape"):
        open_tiny(metadata={"llama.feed_forward_length": 48})


def test_frequency_factors_of_another_length_are_named(open_tiny):
    with pytest.raises(InvalidRequest, match=r"'rope_freqs\.weight' has 3 values, 8 are needed"):
        open_tiny(frequency_factors=(1.0, 2.0, 3.0))


def test_a_tensor_that_is_not_known_is_refused_by_name(open_tiny):
    with pytest.raises(UnsupportedCapability, match=r"tensor 'blk\.0\.ffn_gate_inp\.weight'"):
        open_tiny(extra_tensors=("blk.0.ffn_gate_inp.weight",))


def test_stored_rotary_tables_follow_from_the_facts(open_tiny):
    open_tiny(extra_tensors=("blk.0.attn_rot_embd.weight",))


def test_an_unknown_architecture_is_refused_by_name(tmp_path):
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_tensor("t", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedCapability, match=r"general\.architecture: 'mamba' is not sup"):
        open_checkpoint(path)


def test_one_part_of_a_split_model_is_refused(open_tiny):
    with pytest.raises(UnsupportedCapability, match=r"m\.gguf: split\.count: one part of a split"):
        open_tiny(metadata={"split.count": 3})


def test_every_fault_is_one_line(open_tiny):
    with pytest.raises(LeptondError) as caught:
        open_tiny(kinds={"ffn_up.weight": Kind.F32}, metadata={"llama.block_count": 3})
    assert "\n" not in caught.value.message


def test_a_file_without_an_architecture_is_named(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(64))
    with pytest.raises(InvalidRequest, match=r"m\.gguf: general\.architecture is missing"):
        open_checkpoint(path)
