from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from leptond.checkpoint import (
    Activation,
    LanguageStyle,
    RelativeBias,
    Seq2SeqCheckpoint,
    Seq2SeqDefaults,
    open_checkpoint,
    read_encoder_defaults,
    write_text_assets,
)
from leptond.errors import InvalidRequest, UnsupportedCapability
from tests.fixtures.tiny_models.edit import ABSENT, edit_json, edit_weights
from tests.fixtures.tiny_models.make import make_tiny_model
from tests.fixtures.tiny_models.vocabularies import ENGLISH, pieces, write_spm
from tests.unit.checkpoint.hf_opening import refused


@pytest.fixture
def t5(tmp_path: Path) -> Path:
    return make_tiny_model("t5-relu", tmp_path / "model")


@pytest.fixture
def gated(tmp_path: Path) -> Path:
    return make_tiny_model("t5-gated", tmp_path / "gated")


@pytest.fixture
def marian(tmp_path: Path) -> Path:
    return make_tiny_model("marian", tmp_path / "model")


@pytest.fixture
def nllb(tmp_path: Path) -> Path:
    return make_tiny_model("nllb", tmp_path / "model")


def opened(directory: Path) -> Seq2SeqCheckpoint:
    checkpoint = open_checkpoint(directory)
    assert isinstance(checkpoint, Seq2SeqCheckpoint)
    return checkpoint


def defaults(directory: Path) -> Seq2SeqDefaults:
    found = opened(directory).text.encoder
    assert isinstance(found, Seq2SeqDefaults)
    return found


# -------------------------------------------------------------------------------------------- T5
def test_facts_of_the_first_t5(t5):
    a = opened(t5).architecture
    assert (a.family, a.vocab_size, a.hidden_size, a.head_dim) == ("t5", 114, 32, 8)
    assert (a.num_encoder_layers, a.num_decoder_layers) == (2, 2)
    assert (a.activation, a.has_gated_ffn) == (Activation.RELU, False)
    assert (a.is_pre_norm, a.has_rms_norm, a.has_bias) == (True, True, False)
    assert (a.attention_scale, a.embedding_scale) == (1.0, 1.0)
    assert a.relative_bias == RelativeBias(num_buckets=8, max_distance=20)
    assert a.max_positions is None
    assert (a.has_tied_embedding, a.output_scale) == (True, 32**-0.5)
    assert (a.decoder_start_token_id, a.eos_token_id, a.pad_token_id) == (0, 1, 0)


def test_facts_of_t5_1_1(gated):
    a = opened(gated).architecture
    assert (a.activation, a.has_gated_ffn) == (Activation.GELU_TANH, True)
    assert (a.has_tied_embedding, a.output_scale) == (False, 1.0)


def test_a_decoder_may_be_less_deep(t5):
    edit_json(t5 / "config.json", {"num_decoder_layers": 1})
    refused(t5, UnsupportedCapability, r"tensor 'decoder\.block\.1\..* is not part")
    edit_weights(
        t5,
        lambda tensors: [tensors.pop(name) for name in list(tensors) if "decoder.block.1" in name],
    )
    assert opened(t5).architecture.num_decoder_layers == 1


def _rename(tensors: dict[str, np.ndarray], *, old: str, new: str) -> None:
    tensors[new] = tensors.pop(old)


def test_the_embedding_goes_by_any_of_its_names(t5):
    expected = opened(t5).tensor("embedding.weight").copy()
    for old, new in (
        ("shared.weight", "encoder.embed_tokens.weight"),
        ("encoder.embed_tokens.weight", "lm_head.weight"),
    ):
        edit_weights(t5, partial(_rename, old=old, new=new))
        np.testing.assert_array_equal(opened(t5).tensor("embedding.weight"), expected)


def test_a_tied_output_that_is_stored_must_be_the_embedding(t5):
    edit_weights(t5, lambda t: t.update({"lm_head.weight": t["shared.weight"].copy()}))
    assert opened(t5).architecture.has_tied_embedding
    edit_weights(t5, lambda t: t.update({"lm_head.weight": t["shared.weight"] + 1}))
    refused(t5, InvalidRequest, "'lm_head.weight' is not 'shared.weight'")


def test_an_output_that_is_not_stored_is_tied_yet_not_scaled(gated):
    edit_weights(gated, lambda tensors: tensors.pop("lm_head.weight"))
    a = opened(gated).architecture
    assert (a.has_tied_embedding, a.output_scale) == (True, 1.0)


def test_newer_files_say_the_scale_by_itself(gated):
    edit_json(gated / "config.json", {"tie_word_embeddings": True, "scale_decoder_outputs": False})
    a = opened(gated).architecture
    assert (a.has_tied_embedding, a.output_scale) == (False, 1.0)


def test_a_table_that_no_code_reads_is_passed_over(t5):
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    edit_weights(t5, lambda tensors: tensors.update({name: np.ones((8, 4), np.float32)}))
    assert opened(t5).architecture.num_decoder_layers == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("feed_forward_proj", "gated-tanh"),
        ("architectures", ["T5ForTokenClassification"]),
        ("is_encoder_decoder", False),
    ],
)
def test_what_t5_does_not_do_here_is_refused(t5, key, value):
    edit_json(t5 / "config.json", {key: value})
    refused(t5, UnsupportedCapability, rf"config\.json: {key} = ")


def test_text_of_t5(t5, tmp_path):
    found = defaults(t5)
    assert (found.max_tokens, found.num_special_single, found.vocab_size) == (128, 1, 114)
    assert found.prompts == {"translation_en_to_de": "translate english to german: "}
    assert (found.language_style, found.languages) == (LanguageStyle.NONE, {})
    assert found.max_target_tokens == 512
    write_text_assets(opened(t5).text, tmp_path)
    assert read_encoder_defaults(tmp_path) == found
    generation = opened(t5).text.generation
    assert (generation.eos_token, generation.stop_token_ids, generation.add_bos) == (
        "</s>", (1,), False,
    )  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} >= {"generation.json", "tokenizer.json"}
    edit_json(t5 / "tokenizer_config.json", {"model_max_length": ABSENT})
    assert defaults(t5).max_tokens == 512


def test_a_t5_without_a_tokenizer_is_refused(t5):
    (t5 / "tokenizer.json").unlink()
    refused(t5, InvalidRequest, r"tokenizer\.json is missing")


# ----------------------------------------------------------------------------------- Marian, M2M
def test_facts_of_marian(marian):
    a = opened(marian).architecture
    assert (a.family, a.hidden_size, a.head_dim) == ("marian", 32, 8)
    assert (a.encoder_ffn_size, a.decoder_ffn_size) == (48, 64)
    assert (a.is_pre_norm, a.has_rms_norm, a.has_bias) == (False, False, True)
    assert (a.activation, a.has_gated_ffn) == (Activation.SILU, False)
    assert (a.attention_scale, a.embedding_scale) == (8**-0.5, 32**0.5)
    assert (a.has_tied_embedding, a.has_output_bias, a.output_scale) == (True, True, 1.0)
    assert (a.max_positions, a.relative_bias) == (64, None)
    assert a.decoder_start_token_id == a.pad_token_id == a.vocab_size - 1
    assert not opened(marian).tensor("embedding.weight")[-1].any()


def test_facts_of_m2m(nllb):
    a = opened(nllb).architecture
    assert (a.family, a.is_pre_norm, a.has_output_bias) == ("m2m_100", True, False)
    assert (a.activation, a.decoder_start_token_id) == (Activation.RELU, 2)


def test_positions_of_marian_are_computed(marian):
    expected = opened(marian).tensor("position_embedding.weight")
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(expected[0], [0.0] * 16 + [1.0] * 16)
    np.testing.assert_allclose(expected[5, 1], np.sin(5 * 10_000 ** (-2 / 32)), rtol=1e-6)
    stored = {"model.encoder.embed_positions.weight": np.zeros((64, 32), np.float32)}
    edit_weights(marian, lambda tensors: tensors.update(stored))
    np.testing.assert_array_equal(opened(marian).tensor("position_embedding.weight"), expected)


def test_a_missing_bias_of_the_logits_is_none(marian):
    edit_weights(marian, lambda tensors: tensors.pop("final_logits_bias"))
    assert not opened(marian).architecture.has_output_bias


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("normalize_before", True),
        ("normalize_embedding", True),
        ("static_position_embeddings", False),
        ("share_encoder_decoder_embeddings", False),
        ("tie_word_embeddings", False),
        ("decoder_vocab_size", 99),
        ("decoder_attention_heads", 2),
        ("architectures", ["MarianModel"]),
        ("activation_function", "tanh"),
        ("begin_suppress_tokens", [3]),
    ],
)
def test_what_marian_does_not_do_here_is_refused(marian, key, value):
    edit_json(marian / "config.json", {key: value})
    refused(marian, UnsupportedCapability, f"{key} = ")


def test_sizes_that_do_not_fit_are_refused(marian):
    edit_json(marian / "config.json", {"d_model": 36})
    refused(marian, InvalidRequest, r"config\.json: d_model = 36")


def test_text_of_marian(marian):
    found = defaults(marian)
    assert (found.source_language, found.target_language) == ("eng", "deu")
    assert found.language_style is LanguageStyle.NONE
    assert found.suppressed_token_ids == (found.pad_token_id,)
    assert (found.beam_size, found.max_target_tokens, found.max_tokens) == (4, 64, 64)
    assert found.unknown_token_id == 1


def test_generation_config_counts_before_config(marian):
    changes = {"num_beams": 6, "length_penalty": 0.5, "max_length": 50, "suppress_tokens": [7]}
    edit_json(marian / "generation_config.json", changes)
    found = defaults(marian)
    assert (found.beam_size, found.length_penalty, found.max_target_tokens) == (6, 0.5, 50)
    assert found.suppressed_token_ids == (7, found.pad_token_id)


def test_words_that_must_not_be_answered_are_single_tokens(marian):
    edit_json(marian / "config.json", {"bad_words_ids": [[3, 4]]})
    refused(marian, UnsupportedCapability, r"bad_words_ids: \[3, 4\]")


def test_text_of_nllb(nllb):
    found = defaults(nllb)
    assert found.language_style is LanguageStyle.SOURCE_AND_TARGET
    assert list(found.languages) == ["deu_Latn", "eng_Latn", "fra_Latn"]
    assert (found.source_language, found.target_language) == ("eng_Latn", None)
    assert found.num_special_single == 2
    edit_json(nllb / "tokenizer.json", {"added_tokens": []})
    refused(nllb, InvalidRequest, "no language tokens")


def test_an_end_token_must_have_a_text(t5):
    edit_json(t5 / "config.json", {"eos_token_id": 113})
    refused(t5, InvalidRequest, "token 113 has no text")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eos_token_id": 500}, "eos_token_id = 500: the embedding has"),
        ({"encoder_layers": 10**9}, "encoder_layers = 1000000000: there are"),
        ({"suppress_tokens": [500]}, "no token 500 to suppress"),
        ({"suppress_tokens": ["x"]}, "no token 'x' to suppress"),
        ({"length_penalty": float("inf")}, "length_penalty = inf: it is not finite"),
    ],
)
def test_numbers_that_cannot_be_are_refused(marian, changes, message):
    edit_json(marian / "config.json", changes)
    refused(marian, InvalidRequest, message)


def test_the_end_token_of_marian_is_in_its_vocabulary(marian):
    vocabulary = {"a": 0, "<unk>": 1}
    (marian / "vocab.json").write_text(json.dumps(vocabulary))
    edit_json(marian / "config.json", {"eos_token_id": 2})
    refused(marian, InvalidRequest, r"vocab\.json: the end token 2 is missing")


def test_more_sentinels_than_rows_are_refused(t5):
    (t5 / "tokenizer.json").unlink()
    write_spm(t5 / "spiece.model", pieces(ENGLISH))
    edit_json(t5 / "tokenizer_config.json", {"extra_ids": 10**12})
    refused(t5, InvalidRequest, "extra_ids = 1000000000000: the embedding has 114 rows")
