"""With few candidates the sampler chooses what the definition chooses over all tokens."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptond.backend.picking import log_sum_exp, pick_candidates
from leptond.text import Sampler
from leptond.text.picking import pick_from_candidates, pick_from_row
from leptond.types import SamplingParams, StopConditions
from tests.property.text.naive_sampling import drawn, kept, processed, unfiltered_order

STOP = StopConditions(max_tokens=1000)
NUM_CANDIDATES = 8
FILTERS = {
    "none": {},
    "top_k": {"top_k": 5},
    "top_k of all candidates": {"top_k": 8},
    "top_k beyond the candidates": {"top_k": 20},
    "top_k of the vocabulary": {"top_k": 60},
    "top_k beyond the vocabulary": {"top_k": 1000},
    "narrow top_p": {"top_p": 0.3},
    "wide top_p": {"top_p": 0.95},
    "top_p of nearly all": {"top_p": 0.9999999},
    "min_p": {"min_p": 0.3},
    "wide min_p": {"min_p": 0.001},
    "min_p of one": {"min_p": 1.0},
    "top_k and top_p": {"top_k": 6, "top_p": 0.7},
    "wide top_k and top_p": {"top_k": 30, "top_p": 0.9},
    "wide top_k and min_p": {"top_k": 30, "min_p": 0.4},
    "top_p and min_p": {"top_p": 0.97, "min_p": 0.1},
    "all": {"top_k": 20, "top_p": 0.9, "min_p": 0.05},
}


@pytest.mark.parametrize("scale", [0.05, 1.0, 4.0])
@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS.keys())
def test_every_draw_gives_the_token_that_the_definition_gives(filters, scale):
    rng = np.random.default_rng(7)
    params = SamplingParams(seed=11, temperature=0.8, **filters)
    sampler = Sampler(params, STOP, (), 60)
    draws = random.Random(11)
    for raw in (rng.normal(size=(300, 1, 60)) * scale).astype(np.float32):
        result = pick_candidates(raw, [sampler.pick_for_step()], NUM_CANDIDATES)
        tokens = kept(processed(raw[0].tolist(), params, (), ()), params)
        if filters.keys() <= {"top_k"} and len(tokens) == 60:
            tokens = unfiltered_order(tokens, NUM_CANDIDATES)
        assert sampler.choose(result, 0) == drawn(tokens, draws.random())


def test_a_text_with_penalties_is_the_definitions_text():
    rng = np.random.default_rng(3)
    params = SamplingParams(
        seed=2,
        temperature=0.7,
        top_p=0.9,
        repetition_penalty=1.3,
        presence_penalty=0.4,
        frequency_penalty=0.2,
        logit_bias={4: 1.5, 9: -2.0},
    )
    prompt = [1, 2, 2, 50]
    sampler = Sampler(params, STOP, prompt, 60)
    draws = random.Random(2)
    answer: list[int] = []
    for raw in rng.normal(size=(400, 1, 60)).astype(np.float32):
        result = pick_candidates(raw, [sampler.pick_for_step()], NUM_CANDIDATES)
        expected = drawn(
            kept(processed(raw[0].tolist(), params, prompt, answer), params), draws.random()
        )
        assert sampler.choose(result, 0) == expected
        answer.append(expected)


@pytest.mark.parametrize("filters", [{}, {"top_p": 0.9}, {"top_k": 30}, {"min_p": 0.2}])
def test_tokens_come_as_often_as_they_are_likely(filters):
    rng = np.random.default_rng(5)
    raw = rng.normal(size=(1, 60)).astype(np.float32)
    params = SamplingParams(seed=1, **filters)
    sampler = Sampler(params, STOP, (), 60)
    result = pick_candidates(raw, [None], NUM_CANDIDATES)
    num_draws = 20_000
    counts = Counter(sampler.choose(result, 0) for _ in range(num_draws))
    tokens = dict(kept(raw[0].tolist(), params))
    total = sum(tokens.values())
    assert counts.keys() <= tokens.keys()
    chi_square = sum(
        (counts[token_id] - num_draws * weight / total) ** 2 / (num_draws * weight / total)
        for token_id, weight in tokens.items()
    )
    # The mean of a chi-square is its degrees of freedom, its deviation sqrt(2 * that).
    freedom = len(tokens) - 1
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


def test_a_nucleus_of_very_unlikely_tokens_is_found():
    row = np.asarray([0.0, *[-30.0] * 50], np.float32)
    params = SamplingParams(top_p=1.0 - 1e-13)
    candidates = np.arange(8)
    assert pick_from_row(row, candidates, params, 0.5) == 0
    assert pick_from_row(row, candidates, params, 1.0 - 1e-13) in range(1, 51)


@given(
    logits=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 0.5, 3.0, -np.inf]), min_size=1, max_size=12),
    params=st.builds(
        SamplingParams,
        top_k=st.integers(0, 14),
        top_p=st.sampled_from([0.0, 0.1, 0.5, 0.99, 1.0]),
        min_p=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
    ),
    draw=st.sampled_from([0.0, 0.2371, 0.5123, 0.7677, 1.0 - 2**-53]),
    num_candidates=st.integers(1, 12),
)
def test_with_ties_and_masks_candidates_and_row_agree(logits, params, draw, num_candidates):
    row = np.asarray([[2.0, *logits]], np.float32)
    vocab_size = row.shape[1]
    order = np.argsort(-row[0], kind="stable")[:num_candidates]
    candidates, normalizer = row[0][order].tolist(), float(log_sum_exp(row)[0])
    place = pick_from_candidates(candidates, normalizer, params, draw, vocab_size=vocab_size)
    token_id = pick_from_row(row[0], order, params, draw)
    assert np.isfinite(row[0][token_id])
    assert token_id in {kept_id for kept_id, _ in kept(row[0].tolist(), params)}
    if place is not None:
        assert order[place] == token_id
    if num_candidates >= vocab_size:
        assert place is not None
