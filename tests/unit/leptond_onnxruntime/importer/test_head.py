"""The head against the same formulas in numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from leptond_onnxruntime.importer import Precision
from tests.fixtures.graph_runner import GraphRunner

VOCAB = 300
ROWS = 3


@pytest.fixture
def runner(import_tiny) -> GraphRunner:
    return GraphRunner(import_tiny().directory)


@pytest.fixture
def hidden() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((ROWS, 64)).astype(np.float32)


def logsumexp(logits: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.exp(logits.astype(np.float64)).sum(axis=-1)))


def drawn(name: str, shape: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(3)
    low, high = {"repetition": (0.6, 1.8), "bias": (-4, 4), "temperature": (0.3, 2.5)}[name]
    return rng.uniform(low, high, shape).astype(np.float32)


def check(answers, expected: np.ndarray) -> None:
    np.testing.assert_allclose(answers.log_normalizer, logsumexp(expected), atol=1e-5)
    order = np.argsort(-expected, axis=-1, kind="stable")[:, :64]
    ranked = np.take_along_axis(expected, order, axis=-1)
    np.testing.assert_allclose(answers.candidate_logits, ranked, atol=1e-5)
    chosen = np.take_along_axis(expected, answers.candidate_ids, axis=-1)
    np.testing.assert_allclose(answers.candidate_logits, chosen, atol=1e-5)
    assert all(len(set(ids)) == 64 for ids in answers.candidate_ids.tolist())


@pytest.mark.parametrize(
    "given",
    [
        names
        for length in range(4)
        for names in itertools.combinations(("repetition", "bias", "temperature"), length)
    ],
    ids=lambda names: "+".join(names) or "nothing",
)
@pytest.mark.parametrize("num_rows", [1, ROWS])
def test_penalty_then_bias_then_temperature(runner, hidden, given, num_rows):
    raw = runner.rank(hidden).logits.astype(np.float64)
    picks = {name: drawn(name, (num_rows, 1 if name == "temperature" else VOCAB)) for name in given}
    expected = raw
    if "repetition" in picks:
        expected = np.where(raw > 0, raw / picks["repetition"], raw * picks["repetition"])
    expected = (expected + picks.get("bias", 0.0)) / picks.get("temperature", 1.0)

    answers = runner.rank(hidden, **picks)

    check(answers, expected)
    np.testing.assert_array_equal(answers.logits, raw.astype(np.float32))
    np.testing.assert_allclose(answers.raw_log_normalizer, logsumexp(raw), atol=1e-5)


def test_a_mask_leaves_only_what_it_allows(runner, hidden):
    allowed = [7, 100, 299]
    bias = np.full((1, VOCAB), -np.inf, np.float32)
    bias[0, allowed] = 0
    answers = runner.rank(hidden, bias=bias)
    assert {*answers.candidate_ids[:, :3].ravel().tolist()} == {*allowed}
    assert np.isneginf(answers.candidate_logits[:, 3:]).all()
    expected = logsumexp(answers.logits[:, allowed])
    np.testing.assert_allclose(answers.log_normalizer, expected, atol=1e-5)


def test_a_masked_row_and_a_free_row_share_a_run(runner, hidden):
    bias = np.zeros((ROWS, VOCAB), np.float32)
    bias[1] = -np.inf
    bias[1, 42] = 0
    answers = runner.rank(hidden, bias=bias)
    free = runner.rank(hidden)
    assert answers.candidate_ids[1, 0] == 42
    np.testing.assert_allclose(answers.log_normalizer[1], answers.logits[1, 42], atol=1e-5)
    for row in (0, 2):
        np.testing.assert_array_equal(answers.candidate_ids[row], free.candidate_ids[row])
        np.testing.assert_array_equal(answers.candidate_logits[row], free.candidate_logits[row])


def test_one_row_may_be_tempered_alone(runner, hidden):
    temperature = np.array([[1.0], [0.5], [1.0]], np.float32)
    answers, plain = runner.rank(hidden, temperature=temperature), runner.rank(hidden)
    np.testing.assert_allclose(answers.log_normalizer[0], plain.log_normalizer[0], atol=1e-6)
    np.testing.assert_allclose(answers.log_normalizer[1], logsumexp(plain.logits[1] * 2), atol=1e-5)


def test_large_logits_do_not_overflow(runner, hidden):
    answers = runner.rank(hidden * 1000)
    np.testing.assert_allclose(answers.raw_log_normalizer, answers.logits.max(axis=-1), rtol=1e-5)
    assert np.isfinite(answers.log_normalizer).all()


def test_a_small_vocabulary_is_returned_whole(import_tiny, hidden):
    names = ["a", "b", "ab", *(f"t{number}" for number in range(37))]
    metadata = {
        "tokenizer.ggml.tokens": names,
        "tokenizer.ggml.token_type": [1] * 40,
        "tokenizer.ggml.merges": ["a b"],
    }
    imported = import_tiny(vocab_size=40, metadata=metadata)
    assert imported.spec.num_candidates == 40
    answers = GraphRunner(imported.directory).rank(hidden)
    assert answers.candidate_logits.shape == (ROWS, 40)
    for ids in answers.candidate_ids.tolist():
        assert sorted(ids) == list(range(40))


@pytest.mark.parametrize("precision", [Precision.FLOAT16, Precision.INT8])
def test_everything_after_the_projection_is_float32(import_tiny, hidden, precision):
    runner = GraphRunner(import_tiny(precision).directory)
    answers = runner.rank(hidden.astype(runner.spec.hidden_dtype))
    for values in (answers.logits, answers.candidate_logits, answers.log_normalizer):
        assert values.dtype == np.float32
    check(answers, answers.logits.astype(np.float64))
