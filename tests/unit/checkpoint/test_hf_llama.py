from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from leptond.checkpoint import (
    DecoderCheckpoint,
    GenerationDefaults,
    RotaryEmbedding,
    open_checkpoint,
    write_text_assets,
)
from leptond.errors import InvalidRequest, UnsupportedCapability
from tests.fixtures.tiny_models.edit import ABSENT, edit_json, edit_weights
from tests.fixtures.tiny_models.make import CHAT_TEMPLATE, make_tiny_model
from tests.unit.checkpoint.hf_opening import refused


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return make_tiny_model("llama", tmp_path / "model")


def opened(directory: Path) -> DecoderCheckpoint:
    checkpoint = open_checkpoint(directory)
    assert isinstance(checkpoint, DecoderCheckpoint)
    return checkpoint


def generation(directory: Path) -> GenerationDefaults:
    found = opened(directory).text.generation
    assert found is not None
    return found


# ----------------------------------------------------------------------------------------- facts
def test_facts_of_llama(llama):
    a = opened(llama).architecture
    assert (a.family, a.vocab_size, a.num_layers, a.hidden_size) == ("llama", 266, 2, 64)
    assert (a.num_heads, a.num_kv_heads, a.head_dim, a.ffn_size) == (4, 2, 16, 96)
    assert (a.max_positions, a.norm_epsilon, a.attention_scale) == (256, 1e-5, 0.25)
    assert a.sliding_window is None
    assert not a.has_tied_embedding
    assert not a.has_attention_bias
    assert not a.has_ffn_bias
    assert not a.has_qk_norm


def test_long_waves_are_stretched_and_short_ones_kept(llama):
    rotary = opened(llama).architecture.rotary
    assert (rotary.theta, rotary.dim, rotary.linear_factor) == (10_000.0, 16, 1.0)
    factors = rotary.frequency_factors
    waves = [8192 * 10_000 ** (-pair / 8) / (2 * math.pi) for pair in range(8)]
    for factor, wave in zip(factors, waves, strict=True):
        if wave > 4:
            assert factor == 1
        elif wave < 1:
            assert factor == pytest.approx(8)
        else:
            share = (wave - 1) / 3
            assert 1 / factor == pytest.approx((1 - share) / 8 + share)
    assert {1.0, 8.0} <= set(factors)
    assert any(1 < factor < 8 for factor in factors)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rope_scaling": None}, RotaryEmbedding(10_000.0, 16)),
        ({"rope_scaling": {"rope_type": "default"}}, RotaryEmbedding(10_000.0, 16)),
        (
            {"rope_scaling": {"type": "linear", "factor": 4}},
            RotaryEmbedding(10_000.0, 16, linear_factor=4.0),
        ),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
            RotaryEmbedding(5e5, 16),
        ),
        ({"rope_scaling": None, "rope_theta": ABSENT}, RotaryEmbedding(10_000.0, 16)),
    ],
)
def test_rotary_embeddings_old_and_new(llama, changes, expected):
    edit_json(llama / "config.json", changes)
    assert opened(llama).architecture.rotary == expected


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "yarn", "factor": 4.0},
        {"type": "dynamic", "factor": 2.0},
        {"rope_type": "default", "partial_rotary_factor": 0.5},
    ],
)
def test_other_rotary_embeddings_are_refused(llama, rope):
    edit_json(llama / "config.json", {"rope_scaling": rope})
    refused(llama, UnsupportedCapability, r"config\.json: rope_scaling\.\w+ = ")


def test_a_rotary_scaling_must_be_whole(llama):
    edit_json(llama / "config.json", {"rope_scaling": {"rope_type": "linear"}})
    refused(llama, InvalidRequest, r"rope_scaling\.factor is missing")
    rope = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 4.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    edit_json(llama / "config.json", {"rope_scaling": rope})
    refused(llama, InvalidRequest, r"rope_scaling\.high_freq_factor = 4\.0")
    edit_json(llama / "config.json", {"rope_scaling": 4})
    refused(llama, InvalidRequest, r"rope_scaling\.: an object")


def _add_biases(tensors: dict[str, np.ndarray], *modules: str) -> None:
    for name in list(tensors):
        module = name.removesuffix(".weight")
        if module.endswith(modules):
            tensors[f"{module}.bias"] = np.ones(len(tensors[name]), np.float32)


def test_biases_are_read(llama):
    edit_json(llama / "config.json", {"attention_bias": True, "mlp_bias": True})
    refused(llama, InvalidRequest, r"q_proj\.bias' is missing")
    edit_weights(llama, lambda tensors: _add_biases(tensors, "_proj"))
    a = opened(llama).architecture
    assert a.has_attention_bias
    assert a.has_attention_output_bias
    assert a.has_ffn_bias
    assert opened(llama).tensor("layers.1.ffn.up.bias").shape == (96,)


def test_qwen2_has_biases_of_its_own(llama):
    changes = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "sliding_window": 9}
    edit_json(llama / "config.json", changes)
    edit_weights(llama, lambda tensors: _add_biases(tensors, "q_proj", "k_proj", "v_proj"))
    a = opened(llama).architecture
    assert a.has_attention_bias
    assert not a.has_attention_output_bias
    assert a.sliding_window is None
    edit_json(llama / "config.json", {"use_sliding_window": True})
    refused(llama, UnsupportedCapability, "use_sliding_window = True")


def test_qwen3_normalises_queries_and_keys(llama):
    edit_json(llama / "config.json", {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]})
    norms = {
        f"model.layers.{layer}.self_attn.{part}_norm.weight": np.ones(16, np.float32)
        for layer in range(2)
        for part in "qk"
    }
    edit_weights(llama, lambda tensors: tensors.update(norms))
    assert opened(llama).architecture.has_qk_norm
    assert opened(llama).tensor("layers.0.attention.q_norm.weight").shape == (16,)


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({"sliding_window": 100}, 100),
        ({"sliding_window": None}, None),
        ({}, 4096),
    ],
)
def test_mistral_has_a_window_unless_it_says_none(llama, changes, window):
    mistral = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    path = llama / "config.json"
    edit_json(path, mistral)
    # `edit_json` is not used: a null must stay in the file.
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))
    assert opened(llama).architecture.sliding_window == window


def test_a_tied_output_needs_no_tensor(llama):
    edit_json(llama / "config.json", {"tie_word_embeddings": True})
    assert opened(llama).architecture.has_tied_embedding
    edit_weights(llama, lambda tensors: tensors.pop("lm_head.weight"))
    assert opened(llama).architecture.has_tied_embedding
    edit_json(llama / "config.json", {"tie_word_embeddings": False})
    refused(llama, InvalidRequest, r"'lm_head\.weight' is missing")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "gelu"),
        ("architectures", ["LlamaForSequenceClassification"]),
        ("architectures", []),
        ("partial_rotary_factor", 0.5),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("model_type", "gemma2"),
    ],
)
def test_what_is_not_supported_is_refused_by_file_and_key(llama, key, value):
    edit_json(llama / "config.json", {key: value})
    refused(llama, UnsupportedCapability, rf"config\.json: {key} = ")


@pytest.mark.parametrize(("key", "value"), [("num_key_value_heads", 3), ("head_dim", 15)])
def test_sizes_that_do_not_fit_are_refused(llama, key, value):
    edit_json(llama / "config.json", {key: value})
    refused(llama, InvalidRequest, rf"config\.json: {key} = {value}")


def test_layers_of_one_type_are_all_alike(llama):
    edit_json(llama / "config.json", {"layer_types": ["full_attention"] * 2})
    assert opened(llama).architecture.sliding_window is None


# ------------------------------------------------------------------------------------------- text
def test_generation_defaults(llama, tmp_path):
    assert generation(llama) == GenerationDefaults(
        max_positions=256,
        add_bos=True,
        add_eos=False,
        bos_token_id=0,
        eos_token_id=2,
        stop_token_ids=(2,),
        bos_token="<|begin_of_text|>",
        eos_token="<|im_end|>",
        sampling={"temperature": 0.6, "top_p": 0.9},
    )
    write_text_assets(opened(llama).text, tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == CHAT_TEMPLATE
    assert not (tmp_path / "encoder.json").exists()
    assert opened(llama).text.max_tokens == 256


def test_bos_and_eos_may_be_told_by_config_alone(llama):
    (llama / "generation_config.json").unlink()
    edit_json(llama / "tokenizer_config.json", {"bos_token": ABSENT, "eos_token": ABSENT})
    edit_json(llama / "config.json", {"eos_token_id": [1, 2], "pad_token_id": 1})
    found = generation(llama)
    assert (found.bos_token_id, found.eos_token_id, found.stop_token_ids) == (0, 1, (1, 2))
    assert (found.pad_token_id, found.sampling) == (1, {})
    assert found.add_bos


def test_a_model_may_have_neither_bos_nor_eos(llama):
    (llama / "generation_config.json").unlink()
    edit_json(llama / "tokenizer_config.json", {"bos_token": ABSENT, "eos_token": ABSENT})
    edit_json(llama / "config.json", {"bos_token_id": ABSENT, "eos_token_id": ABSENT})
    found = generation(llama)
    assert (found.bos_token_id, found.eos_token_id) == (None, None)
    assert (found.bos_token, found.eos_token) == ("", "")
    assert not found.add_bos
    # A control token that ends a turn wherever it occurs.
    assert found.stop_token_ids == (2,)


def test_tokenizer_config_may_say_that_bos_and_eos_are_added(llama):
    edit_json(llama / "tokenizer_config.json", {"add_bos_token": False, "add_eos_token": True})
    assert not generation(llama).add_bos
    assert generation(llama).add_eos


def test_the_post_processor_says_whether_eos_is_added(llama):
    definition = json.loads((llama / "tokenizer.json").read_bytes())
    single = definition["post_processor"]["single"]
    single.append({"SpecialToken": {"id": "<|im_end|>", "type_id": 0}})
    definition["post_processor"]["special_tokens"]["<|im_end|>"] = {
        "id": "<|im_end|>", "ids": [2], "tokens": ["<|im_end|>"],
    }  # fmt: skip
    (llama / "tokenizer.json").write_text(json.dumps(definition))
    assert (generation(llama).add_bos, generation(llama).add_eos) == (True, True)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("tokenizer_config.json", {"bos_token": "<bos>"}, "bos_token = '<bos>'"),
        ("generation_config.json", {"eos_token_id": 999}, "eos_token_id: token 999"),
        ("generation_config.json", {"eos_token_id": [2, "x"]}, "eos_token_id: token 'x'"),
        ("config.json", {"pad_token_id": -2}, "pad_token_id: token -2"),
        ("config.json", {"pad_token_id": 1 << 40}, "pad_token_id: token 1099511627776"),
    ],
)
def test_tokens_that_do_not_exist_are_refused(llama, file, changes, message):
    edit_json(llama / file, changes)
    refused(llama, InvalidRequest, f"{file}: {message}")


def test_a_padding_token_of_minus_one_is_none(llama):
    edit_json(llama / "config.json", {"pad_token_id": -1})
    assert generation(llama).pad_token_id is None


def test_a_template_in_a_file_of_its_own_counts_first(llama):
    (llama / "chat_template.jinja").write_bytes(b"{{ messages }}\r\n")
    assert opened(llama).text.chat_template == "{{ messages }}\r\n"


def test_of_several_templates_the_default_is_taken(llama):
    templates = [{"name": "rag", "template": "a"}, {"name": "default", "template": "b"}]
    edit_json(llama / "tokenizer_config.json", {"chat_template": templates})
    assert opened(llama).text.chat_template == "b"
    edit_json(llama / "tokenizer_config.json", {"chat_template": templates[:1]})
    refused(llama, UnsupportedCapability, "rag: none is called 'default'")
    edit_json(llama / "tokenizer_config.json", {"chat_template": ABSENT})
    assert opened(llama).text.chat_template is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_theta": 0.0}, "rope_theta = 0.0"),
        ({"head_dim": 1 << 40}, "head_dim = 1099511627776"),
    ],
)
def test_rotary_numbers_that_cannot_be_are_refused(llama, changes, message):
    edit_json(llama / "config.json", changes)
    refused(llama, InvalidRequest, message)
