from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from leptond.checkpoint import Activation, EncoderArchitecture, open_checkpoint
from leptond.errors import InvalidRequest, UnsupportedCapability
from leptond.types import Task
from tests.fixtures.tiny_models.edit import ABSENT, edit_json, edit_weights
from tests.fixtures.tiny_models.make import make_tiny_model
from tests.unit.checkpoint.hf_opening import encoder_defaults, open_encoder, refused


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return make_tiny_model("bert-classifier", tmp_path / "model")


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    return make_tiny_model("embedder", tmp_path / "model")


# ----------------------------------------------------------------------------------------- facts
def test_facts_of_bert(bert):
    assert open_encoder(bert).architecture == EncoderArchitecture(
        family="bert",
        vocab_size=148,
        num_layers=2,
        hidden_size=32,
        num_heads=4,
        ffn_size=64,
        max_positions=64,
        num_token_types=2,
        norm_epsilon=1e-12,
        activation=Activation.GELU,
    )


def test_facts_of_distilbert(tmp_path):
    facts = open_encoder(make_tiny_model("distilbert-classifier", tmp_path / "m")).architecture
    assert (facts.family, facts.num_token_types, facts.norm_epsilon) == ("distilbert", 0, 1e-12)
    assert (facts.hidden_size, facts.ffn_size, facts.num_layers) == (32, 64, 2)


def test_the_rows_that_roberta_keeps_for_padding_are_cut_off(tmp_path):
    path = make_tiny_model("xlm-roberta-classifier", tmp_path / "m")
    checkpoint = open_encoder(path)
    assert checkpoint.architecture.max_positions == 64
    assert checkpoint.architecture.num_token_types == 1
    assert checkpoint.architecture.norm_epsilon == 1e-5
    assert not encoder_defaults(path).has_token_types
    table = checkpoint.tensor("position_embedding.weight")
    edit_json(path / "config.json", {"max_position_embeddings": 2})
    refused(path, InvalidRequest, "the first 2 rows belong to padding")
    assert table.shape == (64, 32)


@pytest.mark.parametrize(
    ("name", "activation"),
    [("relu", Activation.RELU), ("gelu_new", Activation.GELU_TANH), ("silu", Activation.SILU)],
)
def test_activations_go_by_the_names_of_transformers(bert, name, activation):
    edit_json(bert / "config.json", {"hidden_act": name})
    assert open_encoder(bert).architecture.activation is activation


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "quick_gelu"),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("pruned_heads", {"0": [1]}),
        ("quantization_config", {"bits": 8}),
        ("auto_map", {"AutoModel": "modeling.Model"}),
        ("model_type", "mpnet"),
        ("architectures", ["BertForTokenClassification"]),
        ("problem_type", "ranking"),
    ],
)
def test_what_is_not_supported_is_refused_by_file_and_key(bert, key, value):
    edit_json(bert / "config.json", {key: value})
    with pytest.raises(UnsupportedCapability) as caught:
        open_checkpoint(bert)
    assert f"config.json: {key} = {value!r}" in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": ABSENT},
        {"hidden_size": "32"},
        {"hidden_size": 0},
        {"vocab_size": -1},
        {"num_attention_heads": 5},
        {"layer_norm_eps": "small"},
        {"architectures": ["A", "B"]},
        {"id2label": {"0": "a"}},
        {"id2label": {"0": 1}},
        {"id2label": ["a"]},
        {"model_type": ABSENT},
    ],
)
def test_a_key_that_cannot_be_is_named(bert, changes):
    edit_json(bert / "config.json", changes)
    refused(bert, InvalidRequest, f"config.json: {next(iter(changes))}")


def test_switched_off_features_and_unknown_keys_change_nothing(bert):
    plain = open_encoder(bert).architecture
    changes = {"is_decoder": False, "position_embedding_type": "absolute", "my_note": "x"}
    edit_json(bert / "config.json", {**changes, "quantization_config": None, "auto_map": {}})
    assert open_encoder(bert).architecture == plain


# --------------------------------------------------------------------------------------- tensors
def test_a_tensor_of_another_shape_is_refused(bert):
    edit_json(bert / "config.json", {"intermediate_size": 60})
    refused(bert, InvalidRequest, r"intermediate.dense.weight' has shape \(64, 32\), config.json")


def test_a_missing_tensor_is_named(bert):
    edit_weights(bert, lambda tensors: tensors.pop("bert.encoder.layer.1.output.dense.bias"))
    refused(bert, InvalidRequest, r"'bert.encoder.layer.1.output.dense.bias' is missing")


def test_a_tensor_that_nobody_knows_is_refused(bert):
    edit_weights(bert, lambda tensors: tensors.update({"bert.adapter.weight": np.ones(2)}))
    refused(bert, UnsupportedCapability, "tensor 'bert.adapter.weight' is not part")


def test_heads_of_pre_training_and_counters_are_passed_over(embedder):
    unused: dict[str, np.ndarray] = {
        "embeddings.position_ids": np.arange(64)[None],
        "cls.predictions.bias": np.ones(3, np.float32),
    }
    edit_weights(embedder, lambda tensors: tensors.update(unused))
    edit_json(embedder / "config.json", {"architectures": ["BertForPreTraining"]})
    assert open_encoder(embedder).head().task is Task.EMBED


def test_names_of_tensorflow_are_known(embedder):
    gain = open_encoder(embedder).tensor("embedding_norm.weight").copy()

    def rename(tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            if "LayerNorm" in name:
                old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
                old = old.replace("LayerNorm.bias", "LayerNorm.beta")
                tensors[old] = tensors.pop(name)

    edit_weights(embedder, rename)
    np.testing.assert_array_equal(open_encoder(embedder).tensor("embedding_norm.weight"), gain)


def test_half_precision_is_read(bert):
    plain = open_encoder(bert).tensor("layers.0.ffn.up.weight").copy()
    edit_weights(
        bert, lambda tensors: tensors.update({k: v.astype(np.float16) for k, v in tensors.items()})
    )
    got = open_encoder(bert).tensor("layers.0.ffn.up.weight")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, plain, atol=1e-3)


def _keep_half(tensors: dict[str, np.ndarray], *, is_first: bool) -> None:
    for name in list(tensors):
        if ("layer.1" in name) is not is_first:
            del tensors[name]


def test_weights_in_several_files_are_found_by_their_index(bert):
    expected = open_encoder(bert).tensor("layers.1.attention.q.weight").copy()
    edit_weights(bert, lambda tensors: None, name="all")
    for index, is_first in enumerate((True, False)):
        shutil.copy(bert / "all.safetensors", bert / "model.safetensors")
        edit_weights(bert, partial(_keep_half, is_first=is_first), name=f"part-{index}")
    names = {"a": "part-0.safetensors", "b": "part-1.safetensors"}
    edit_json(bert / "model.safetensors.index.json", {"weight_map": names})
    np.testing.assert_array_equal(
        open_encoder(bert).tensor("layers.1.attention.q.weight"), expected
    )
    edit_json(bert / "model.safetensors.index.json", {"weight_map": {"a": "../evil.safetensors"}})
    refused(bert, InvalidRequest, "weight_map: a file outside the directory")


def test_pickles_are_refused_with_advice(bert):
    (bert / "model.safetensors").rename(bert / "pytorch_model.bin")
    refused(bert, UnsupportedCapability, r"pytorch_model\.bin: pickled .* as safetensors")


def test_a_directory_without_weights_or_config_is_refused(bert):
    (bert / "model.safetensors").unlink()
    refused(bert, InvalidRequest, r"model\.safetensors is missing")
    (bert / "config.json").unlink()
    refused(bert, InvalidRequest, r"config\.json: No such file")


@pytest.mark.parametrize(("content", "message"), [("{", "not JSON"), ("[]", "an object")])
def test_a_config_that_is_no_object_is_refused(bert, content, message):
    (bert / "config.json").write_text(content)
    refused(bert, InvalidRequest, rf"config\.json: .*{message}")


# ------------------------------------------------------------------------------------------- text
def test_lowering_the_case_is_the_tokenizers_work(embedder):
    edit_json(embedder / "sentence_bert_config.json", {"do_lower_case": True})
    assert encoder_defaults(embedder).max_tokens == 48
    edit_json(embedder / "tokenizer.json", {"normalizer": None})
    refused(embedder, UnsupportedCapability, "do_lower_case = True")


def test_the_shortest_limit_counts(embedder):
    edit_json(embedder / "tokenizer_config.json", {"model_max_length": 40})
    assert encoder_defaults(embedder).max_tokens == 40
    edit_json(embedder / "tokenizer_config.json", {"model_max_length": 1e30})
    edit_json(embedder / "sentence_bert_config.json", {"max_seq_length": 9999})
    assert encoder_defaults(embedder).max_tokens == 64


def test_a_limit_of_nothing_is_refused(embedder):
    edit_json(embedder / "tokenizer_config.json", {"model_max_length": 0})
    refused(embedder, InvalidRequest, r"tokenizer_config\.json: model_max_length = 0")


def test_the_side_that_is_cut(embedder):
    edit_json(embedder / "tokenizer_config.json", {"truncation_side": "left"})
    assert encoder_defaults(embedder).truncation_side == "left"
    edit_json(embedder / "tokenizer_config.json", {"truncation_side": "middle"})
    refused(embedder, InvalidRequest, "truncation_side = 'middle'")


def test_padding_and_truncation_of_the_file_do_not_count(embedder):
    tokenizer = Tokenizer.from_file(str(embedder / "tokenizer.json"))
    tokenizer.enable_padding(length=12)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(embedder / "tokenizer.json"))
    assert encoder_defaults(embedder).num_special_single == 2


def test_a_tokenizer_must_be_there_and_fit(embedder):
    tokenizer = embedder / "tokenizer.json"
    edit_json(
        tokenizer,
        {
            "added_tokens": [
                {"id": 148, "content": "<more>", "special": True, "single_word": False,
                 "lstrip": False, "rstrip": False, "normalized": False}
            ]
        },
    )  # fmt: skip
    refused(embedder, InvalidRequest, "token 148 is beyond the 148 rows")
    tokenizer.write_text("{}")
    refused(embedder, InvalidRequest, r"tokenizer\.json: ")
    tokenizer.write_bytes(b"\xff")
    refused(embedder, InvalidRequest, r"tokenizer\.json: ")
    tokenizer.unlink()
    refused(embedder, InvalidRequest, r"tokenizer\.json is missing: save")
