"""Tiny models against what transformers, and the engine's own converter, made of them."""

from __future__ import annotations

import ctranslate2
import numpy as np
import pytest

from leptond.backend import BatchRow
from tests.fixtures.tiny_models.goldens import golden_options, golden_rows
from tests.integration.leptond_ctranslate2.conftest import ask

CLASSIFIERS = [
    "bert-classifier",
    "bert-cross-encoder",
    "distilbert-classifier",
    "xlm-roberta-classifier",
]
TRANSLATORS = ["marian", "nllb", "t5-gated", "t5-relu"]
TOLERANCE = 1e-4
OPTIONS = golden_options()
MAX_TOKENS = OPTIONS["max_new_tokens"]
BEAMS = {"beam_size": OPTIONS["num_beams"], "num_hypotheses": OPTIONS["num_hypotheses"]}


def tensors(row, name="token_type_ids"):
    return {name: np.array(row[name], np.int64)} if name in row else {}


def encoder_row(row, **options):
    return BatchRow(row["token_ids"], tensors=tensors(row), options=options)


def source_row(row, **options):
    return BatchRow(row["token_ids"], tensors=tensors(row, "target_prefix"), options=options)


def is_unanswered(row):
    """Whether the source is a stop token alone, to which the engine answers nothing."""
    return len(row["token_ids"]) == 1


def assert_close(actual, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def cosine(a, b):
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


# ------------------------------------------------------------------------------------- encoders
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_logits_are_those_of_transformers(open_session, name):
    rows = golden_rows(name)
    session = open_session(name)
    together = ask(session, [encoder_row(row, task="classify") for row in rows])
    for row, answer in zip(rows, together, strict=True):
        alone = ask(session, [encoder_row(row)])[0]
        assert_close(answer.tensors["logits"], row["logits"])
        assert_close(alone.tensors["logits"], row["logits"])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_int8_logits_are_near_those_of_transformers(open_session, name):
    rows = golden_rows(name)
    for row, answer in zip(
        rows, ask(open_session(name, "int8"), [encoder_row(row) for row in rows]), strict=True
    ):
        assert_close(answer.tensors["logits"], row["logits"], 0.1)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_embeddings_are_those_of_the_references_modules(open_session, pooling):
    rows = golden_rows("embedder")
    session = open_session("embedder")
    for row, answer in zip(
        rows, ask(session, [encoder_row(row, pooling=pooling) for row in rows]), strict=True
    ):
        assert_close(answer.tensors["embedding"], row["embeddings"][pooling])


def test_the_models_own_pooling_is_the_default(open_session):
    row = golden_rows("embedder")[0]
    (answer,) = ask(open_session("embedder"), [encoder_row(row, task="embed")])
    assert_close(answer.tensors["embedding"], row["embeddings"]["mean"])


@pytest.mark.parametrize("name", [*CLASSIFIERS, "embedder"])
def test_hidden_states_are_those_of_the_engines_own_converter(find_source, name):
    encoder = ctranslate2.Encoder(str(find_source(name).directory), intra_threads=1)
    for row in golden_rows(name):
        types = [row["token_type_ids"]] if "token_type_ids" in row else None
        output = encoder.forward_batch([row["token_ids"]], token_type_ids=types)
        hidden = np.array(output.last_hidden_state)[0]
        assert_close(hidden.mean(0), row["ct2"]["hidden_mean"])
        assert_close(hidden[0], row["ct2"]["hidden_first"])


# --------------------------------------------------------------------- sequence to sequence
@pytest.mark.parametrize("name", TRANSLATORS)
def test_greedy_answers_are_those_of_transformers_and_of_the_engines_converter(open_session, name):
    rows = golden_rows(name)
    answers = ask(open_session(name), [source_row(row, max_tokens=MAX_TOKENS) for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        prefix = row["target_prefix"]
        if is_unanswered(row):
            assert answer.token_ids == []
            continue
        expected = row["greedy"][0]["token_ids"]
        assert prefix + answer.token_ids == expected == row["ct2_greedy"][0]["token_ids"]
        assert len(answer.scores) == len(answer.token_ids)


@pytest.mark.parametrize("name", TRANSLATORS)
def test_beams_are_those_of_transformers(open_session, name):
    rows = golden_rows(name)
    options = {**BEAMS, "max_tokens": MAX_TOKENS, "task": "translate"}
    answers = ask(open_session(name), [source_row(row, **options) for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        found = [[token for token in line if token >= 0] for line in answer.tensors["hypotheses"]]
        assert len(found) == len(answer.tensors["scores"]) == BEAMS["num_hypotheses"]
        if is_unanswered(row):
            assert answer.tensors["scores"].tolist() == [0] * BEAMS["num_hypotheses"]
            assert not any(found)
            continue
        assert [row["target_prefix"] + line for line in found] == [
            hypothesis["token_ids"] for hypothesis in row["beam"]
        ]
        scores = answer.tensors["scores"]
        assert (scores[:-1] >= scores[1:]).all()


@pytest.mark.parametrize("name", TRANSLATORS)
def test_scores_of_a_given_answer_are_those_of_transformers(open_session, name):
    rows = golden_rows(name)
    targets = [np.array(row["beam"][0]["token_ids"], np.int64) for row in rows]
    batch = [
        BatchRow(row["token_ids"], tensors={"target": target}, options={"task": "score"})
        for row, target in zip(rows, targets, strict=True)
    ]
    # Marian's padding can be no answer here; its share there is what the tolerance is for.
    tolerance = 5e-3 if name == "marian" else 2e-4
    for row, target, answer in zip(rows, targets, ask(open_session(name), batch), strict=True):
        logprobs = answer.tensors["token_logprobs"]
        assert logprobs.shape == target.shape
        assert_close(logprobs, row["target_logprobs"], tolerance)
        if name == "marian":
            assert (logprobs > np.array(row["target_logprobs"]) - TOLERANCE).all()


@pytest.mark.parametrize("name", ["nllb", "t5-gated", "t5-relu"])
def test_scores_of_greedy_tokens_are_those_of_the_same_answer_given(open_session, name):
    session = open_session(name)
    (row,) = [row for row in golden_rows(name) if row["text"] == "xyz 127"]
    (answer,) = ask(session, [source_row(row, max_tokens=MAX_TOKENS)])
    target = np.array(row["target_prefix"] + answer.token_ids)
    given = BatchRow(row["token_ids"], tensors={"target": target}, options={"task": "score"})
    (scored,) = ask(session, [given])
    assert_close(answer.scores, scored.tensors["token_logprobs"][len(row["target_prefix"]) :])


# ------------------------------------------------------------------------------------- decoders
def test_generated_tokens_are_those_of_transformers(open_session):
    """The engine's own converter loses where the long-context frequencies begin."""
    rows = golden_rows("llama")
    session = open_session("llama")
    batch = [BatchRow(row["token_ids"], options={"max_tokens": MAX_TOKENS}) for row in rows]
    for row, prompt, answer in zip(rows, batch, ask(session, batch), strict=True):
        assert answer.token_ids == row["greedy"]
        assert ask(session, [prompt])[0].token_ids == row["greedy"]


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", TOLERANCE), ("int8", 0.2)])
def test_logprobs_of_a_text_are_those_of_transformers(open_session, precision, tolerance):
    rows = golden_rows("llama")
    batch = [BatchRow(row["token_ids"], options={"task": "score"}) for row in rows]
    for row, answer in zip(rows, ask(open_session("llama", precision), batch), strict=True):
        assert answer.tensors["token_logprobs"].shape == (len(row["token_ids"]) - 1,)
        assert_close(answer.tensors["token_logprobs"], row["token_logprobs"], tolerance)
