"""What a reader says of a checkpoint, computed in plain numpy, is what transformers computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from leptond.backend.heads import POOLINGS, Head
from leptond.checkpoint import (
    Checkpoint,
    DecoderCheckpoint,
    EncoderCheckpoint,
    Seq2SeqCheckpoint,
    expected_shapes,
    open_checkpoint,
)
from tests.fixtures.tiny_models import reference
from tests.fixtures.tiny_models.goldens import golden_rows
from tests.fixtures.tiny_models.make import TINY_MODELS, make_tiny_model

CLASSIFIERS = (
    "bert-classifier",
    "bert-cross-encoder",
    "distilbert-classifier",
    "xlm-roberta-classifier",
)
ENCODERS = (*CLASSIFIERS, "embedder")
TRANSLATORS = ("marian", "nllb", "t5-gated", "t5-relu")
# The goldens are float32 sums with six decimals.
CLOSE: dict[str, Any] = {"atol": 2e-4, "rtol": 0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """Make and open the tiny model of that name, once."""
    opened: dict[str, Checkpoint] = {}

    def checkpoint(name: str) -> Checkpoint:
        if name not in opened:
            path = tmp_path_factory.mktemp("tiny") / name
            opened[name] = open_checkpoint(make_tiny_model(name, path))
        return opened[name]

    return checkpoint


@pytest.mark.parametrize("name", TINY_MODELS)
def test_every_tensor_is_there_in_its_shape(tiny, name):
    checkpoint = tiny(name)
    for tensor, shape in expected_shapes(checkpoint.architecture).items():
        values = checkpoint.tensor(tensor)
        assert (values.shape, values.dtype) == (shape, np.float32)
    with pytest.raises(KeyError):
        checkpoint.tensor("no.such.weight")


@pytest.mark.parametrize("name", ENCODERS)
def test_hidden_states_of_encoders_are_those_of_transformers(tiny, name):
    for row in golden_rows(name):
        hidden = _hidden(tiny(name), row)
        np.testing.assert_allclose(hidden.mean(0), row["hidden_mean"], **CLOSE)
        np.testing.assert_allclose(hidden[0], row["hidden_first"], **CLOSE)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_logits_of_classifiers_are_those_of_transformers(tiny, name, tmp_path):
    head = _stored_head(tiny(name), tmp_path)
    for row in golden_rows(name):
        logits = head.classify(*_batch_of_one(_hidden(tiny(name), row)))
        np.testing.assert_allclose(logits, [row["logits"]], **CLOSE)
        assert logits.shape == (1, head.num_outputs(32))


def test_embeddings_are_those_of_the_modules_with_every_pooling(tiny, tmp_path):
    head = _stored_head(tiny("embedder"), tmp_path)
    for row in golden_rows("embedder"):
        batch = _batch_of_one(_hidden(tiny("embedder"), row))
        for pooling in POOLINGS:
            np.testing.assert_allclose(
                head.embed(*batch, pooling), [row["embeddings"][pooling]], **CLOSE
            )
        np.testing.assert_array_equal(head.embed(*batch), head.embed(*batch, "mean"))


@pytest.mark.parametrize("name", TRANSLATORS)
def test_logprobs_of_targets_are_those_of_transformers(tiny, name):
    checkpoint = tiny(name)
    assert isinstance(checkpoint, Seq2SeqCheckpoint)
    for row in golden_rows(name):
        target = row["beam"][0]["token_ids"]
        logits = reference.target_logits(checkpoint, row["token_ids"], target)
        logprobs = reference.log_softmax(logits)[range(len(target)), target]
        np.testing.assert_allclose(logprobs, row["target_logprobs"], **CLOSE)


def test_logits_of_the_decoder_are_those_of_transformers(tiny):
    checkpoint = tiny("llama")
    assert isinstance(checkpoint, DecoderCheckpoint)
    for row in golden_rows("llama"):
        ids = row["token_ids"]
        logits = reference.decoder_logits(checkpoint, ids)
        np.testing.assert_allclose(logits[-1], row["last_logits"], **CLOSE)
        logprobs = reference.log_softmax(logits)[range(len(ids) - 1), ids[1:]]
        np.testing.assert_allclose(logprobs, row["token_logprobs"], **CLOSE)


@pytest.mark.parametrize("name", TINY_MODELS)
def test_tokenizers_give_the_recorded_ids(tiny, name):
    text = tiny(name).text
    tokenizer = Tokenizer.from_str(text.tokenizer_json)
    for row in golden_rows(name):
        pair = row["text"] if isinstance(row["text"], list) else [row["text"]]
        ids = tokenizer.encode(*pair).ids
        if name == "marian":
            # A piece that its vocabulary lacks: the rule of `Seq2SeqDefaults.vocab_size`.
            defaults = text.encoder
            ids = [i if i < defaults.vocab_size else defaults.unknown_token_id for i in ids]
        assert ids == row["token_ids"]


def _hidden(checkpoint: Checkpoint, row: dict[str, Any]) -> np.ndarray:
    assert isinstance(checkpoint, EncoderCheckpoint)
    return reference.encoder_hidden(checkpoint, row["token_ids"], row.get("token_type_ids"))


def _stored_head(checkpoint: Checkpoint, directory: Path) -> Head:
    """The head after a journey through the files, as a plug-in reads it."""
    assert isinstance(checkpoint, EncoderCheckpoint)
    Head(*checkpoint.head()).save(directory)
    return Head.load(directory)


def _batch_of_one(hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Padded by a few positions, which must not count."""
    padded = np.pad(hidden, [(0, 3), (0, 0)], constant_values=9.0).astype(np.float32)
    return padded[None], np.array([len(hidden)])
