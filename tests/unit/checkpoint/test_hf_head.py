from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leptond.checkpoint import EncoderDefaults, read_encoder_defaults, write_text_assets
from leptond.errors import InvalidRequest, UnsupportedCapability
from leptond.types import Task
from tests.fixtures.tiny_models.edit import ABSENT, edit_json, edit_weights
from tests.fixtures.tiny_models.make import make_tiny_model
from tests.fixtures.tiny_models.vocabularies import write_json
from tests.unit.checkpoint.hf_opening import encoder_defaults, open_encoder, refused


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return make_tiny_model("bert-classifier", tmp_path / "model")


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    return make_tiny_model("embedder", tmp_path / "model")


# --------------------------------------------------------------------------------- classification
def test_labels_and_activations_of_classifiers(bert, tmp_path):
    found = encoder_defaults(bert)
    assert found.labels == ("negative", "neutral", "positive")
    assert (found.problem_type, found.activation) == ("single_label", "softmax")
    assert (found.pooling, found.dimensions, found.normalize) == ("cls", 3, False)
    assert not found.is_cross_encoder
    many = encoder_defaults(make_tiny_model("distilbert-classifier", tmp_path / "many"))
    assert (many.problem_type, many.activation) == ("multi_label", "sigmoid")
    one = encoder_defaults(make_tiny_model("bert-cross-encoder", tmp_path / "one"))
    assert (one.problem_type, one.activation, one.is_cross_encoder) == (
        "regression",
        "sigmoid",
        True,
    )


@pytest.mark.parametrize(
    ("changes", "activation"),
    [
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            "identity",
        ),
        ({"sbert_ce_default_activation_function": "torch.nn.Sigmoid"}, "sigmoid"),
        ({"problem_type": "regression"}, "identity"),
        ({"problem_type": "single_label_classification"}, "sigmoid"),
    ],
)
def test_a_cross_encoder_may_name_its_activation(tmp_path, changes, activation):
    path = make_tiny_model("bert-cross-encoder", tmp_path / "m")
    edit_json(path / "config.json", changes)
    assert encoder_defaults(path).activation == activation


def test_an_activation_that_is_not_known_is_refused(tmp_path):
    path = make_tiny_model("bert-cross-encoder", tmp_path / "m")
    edit_json(path / "config.json", {"sbert_ce_default_activation_function": "torch.nn.Tanhshrink"})
    refused(path, UnsupportedCapability, "sbert_ce_default_activation_function = 'torch.nn.Tanh")


def test_labels_without_names_are_numbered(bert):
    edit_json(bert / "config.json", {"id2label": ABSENT})
    assert encoder_defaults(bert).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_a_classifier_must_be_whole(bert):
    edit_weights(bert, lambda tensors: tensors.pop("classifier.bias"))
    refused(bert, InvalidRequest, "'classifier': weight or bias is missing")
    edit_weights(bert, lambda tensors: tensors.update({"classifier.bias": np.ones(5, np.float32)}))
    refused(bert, InvalidRequest, "'classifier': shapes")


def test_the_head_of_a_classifier(bert):
    head = open_encoder(bert).head()
    assert head.task is Task.CLASSIFY
    assert [operation["op"] for operation in head.operations] == ["pool", "dense", "dense"]
    assert [operation["activation"] for operation in head.operations[1:]] == ["tanh", "identity"]
    assert {name: array.shape for name, array in head.arrays.items()} == {
        "0.weight": (32, 32),
        "0.bias": (32,),
        "1.weight": (3, 32),
        "1.bias": (3,),
    }


# -------------------------------------------------------------------------- sentence-transformers
def test_defaults_of_an_embedder(embedder, tmp_path):
    found = encoder_defaults(embedder)
    assert found == EncoderDefaults(
        architecture="bert",
        max_tokens=48,
        num_special_single=2,
        prompts={"query": "hello ", "document": ""},
        dimensions=24,
        pooling="mean",
        normalize=True,
        has_token_types=True,
    )
    write_text_assets(open_encoder(embedder).text, tmp_path)
    assert read_encoder_defaults(tmp_path) == found
    assert (tmp_path / "tokenizer.json").read_text() == (embedder / "tokenizer.json").read_text()
    assert not (tmp_path / "generation.json").exists()


def test_a_bare_encoder_takes_the_mean(embedder):
    (embedder / "modules.json").unlink()
    found = encoder_defaults(embedder)
    assert (found.pooling, found.normalize, found.dimensions) == ("mean", False, 32)
    assert found.max_tokens == 64
    assert open_encoder(embedder).head().operations == [{"op": "pool", "kind": "mean"}]


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}, "last"),
    ],
)
def test_poolings_old_and_new(embedder, pooling, expected):
    edit_json(embedder / "1_Pooling/config.json", pooling)
    assert encoder_defaults(embedder).pooling == expected


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode": "max"},
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_mean_tokens": False},
        {"include_prompt": False},
    ],
)
def test_other_poolings_are_refused(embedder, pooling):
    edit_json(embedder / "1_Pooling/config.json", pooling)
    refused(embedder, UnsupportedCapability, r"1_Pooling/config\.json: ")


def _write_modules(directory: Path, kinds: list[tuple[str, str]]) -> None:
    modules: list[dict[str, Any]] = [{"type": f"x.{kind}", "path": path} for kind, path in kinds]
    write_json(directory / "modules.json", modules)


@pytest.mark.parametrize(
    "kinds",
    [
        ["Transformer", "LSTM", "Pooling"],
        ["Transformer"],
        ["Transformer", "Pooling", "Normalize", "Dense"],
        [],
    ],
)
def test_other_modules_are_refused(embedder, kinds):
    folders = {"Pooling": "1_Pooling", "Dense": "2_Dense"}
    _write_modules(embedder, [(kind, folders.get(kind, "")) for kind in kinds])
    refused(embedder, UnsupportedCapability, r"modules\.json: .*in this order")


def test_dropout_is_off_in_use(embedder):
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dropout", "2_Dropout")]
    _write_modules(embedder, kinds)
    assert (encoder_defaults(embedder).dimensions, encoder_defaults(embedder).normalize) == (
        32,
        False,
    )


def test_the_transformer_may_lie_in_a_folder_of_its_own(embedder):
    inner = embedder / "0_Transformer"
    inner.mkdir()
    for name in (
        "config.json", "model.safetensors", "sentence_bert_config.json", "tokenizer.json",
        "tokenizer_config.json",
    ):  # fmt: skip
        (embedder / name).rename(inner / name)
    _write_modules(embedder, [("Transformer", "0_Transformer"), ("Pooling", "1_Pooling")])
    assert encoder_defaults(embedder).max_tokens == 48


def test_a_module_outside_the_directory_is_refused(embedder):
    _write_modules(embedder, [("Transformer", ""), ("Pooling", "../elsewhere")])
    refused(embedder, InvalidRequest, "a folder outside the directory")


def test_modules_must_be_a_list_of_objects(embedder):
    (embedder / "modules.json").write_text("{}")
    refused(embedder, InvalidRequest, "a list of modules")
    (embedder / "modules.json").write_text("[1]")
    refused(embedder, InvalidRequest, "an object is needed")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"activation_function": "torch.nn.SiLU"}, UnsupportedCapability, "activation_function = "),
        ({"in_features": 16}, InvalidRequest, r"config\.json asks for"),
        ({"bias": False}, InvalidRequest, r"config\.json asks for"),
    ],
)
def test_a_dense_layer_that_cannot_be_is_refused(embedder, changes, error, message):
    edit_json(embedder / "2_Dense/config.json", changes)
    refused(embedder, error, message)


def test_a_dense_layer_takes_what_the_one_before_gives(embedder):
    _write_modules(
        embedder,
        [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Dense", "2_Dense")],
    )
    refused(embedder, InvalidRequest, "it takes 32 values, not 24")


def test_a_dense_layer_without_a_bias(embedder):
    edit_json(embedder / "2_Dense/config.json", {"bias": False})
    edit_weights(embedder / "2_Dense", lambda tensors: tensors.pop("linear.bias"))
    head = open_encoder(embedder).head()
    assert head.operations[1]["bias"] is None
    assert head.arrays.keys() == {"0.weight"}


def test_the_default_prompt_must_exist(embedder):
    path = embedder / "config_sentence_transformers.json"
    edit_json(path, {"default_prompt_name": "query"})
    assert encoder_defaults(embedder).default_prompt == "query"
    edit_json(path, {"default_prompt_name": "other"})
    refused(embedder, InvalidRequest, "default_prompt_name = 'other'")


def test_modules_fit_encoders_only(tmp_path):
    path = make_tiny_model("llama", tmp_path / "m")
    (path / "1_Pooling").mkdir()
    edit_json(path / "1_Pooling/config.json", {"pooling_mode": "lasttoken"})
    _write_modules(path, [("Transformer", ""), ("Pooling", "1_Pooling")])
    refused(path, UnsupportedCapability, "model_type = 'llama'")
