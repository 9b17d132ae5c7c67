"""The sampler's state: penalties, masks, seeds, logprobs, faults."""

from __future__ import annotations

import math

import numpy as np
import pytest

from leptond.backend import StepResult
from leptond.backend.picking import pick_candidates
from leptond.errors import BackendFault, InvalidRequest
from leptond.text import Sampler, check_finite
from leptond.types import SamplingParams, StopConditions
from tests.unit.text.tiny import byte_level_tokenizer

VOCAB_SIZE = 100
NO_STOP = StopConditions(max_tokens=10)


def new_sampler(stop=NO_STOP, prompt_ids=(), **params) -> Sampler:
    return Sampler(SamplingParams(**params), stop, prompt_ids, VOCAB_SIZE)


def step(sampler: Sampler, raw) -> StepResult:
    """One line of what an engine answers to the sampler's pick, with 8 candidates."""
    return pick_candidates(
        np.asarray([raw], np.float32), [sampler.pick_for_step()], num_candidates=8
    )


def row(**logits: float) -> list[float]:
    """A row of zeros but for the tokens named `t7=1.0`."""
    values = [0.0] * VOCAB_SIZE
    for name, logit in logits.items():
        values[int(name[1:])] = logit
    return values


def test_a_plain_greedy_request_needs_no_processing_and_no_draw():
    sampler = new_sampler(temperature=0.0, top_k=3, top_p=0.1)
    assert sampler.pick_for_step() is None
    assert not sampler.needs_draw
    assert sampler.choose(step(sampler, row(t7=1.0)), 0) == 7


def test_temperature_is_given_to_the_engine():
    pick = new_sampler(temperature=0.5).pick_for_step()
    assert pick is not None
    assert (pick.temperature, pick.repetition, pick.bias) == (0.5, None, None)
    assert new_sampler(temperature=1.0).pick_for_step() is None


def test_the_lowest_temperature_gives_the_likeliest_token():
    sampler = new_sampler(temperature=1e-45)
    result = step(sampler, row(t7=30.0, t8=29.9))
    assert [sampler.choose(result, 0) for _ in range(20)] == [7] * 20


def test_the_repetition_penalty_is_about_prompt_and_answer():
    sampler = new_sampler(temperature=0.0, repetition_penalty=2.0, prompt_ids=[7, 7])
    assert sampler.choose(step(sampler, row(t7=1.9, t8=1.0)), 0) == 8
    assert sampler.choose(step(sampler, row(t7=1.9, t8=1.9, t9=1.0)), 0) == 9
    # A negative logit is made lower, not higher.
    negative = [-3.0] * VOCAB_SIZE
    negative[7] = negative[8] = negative[9] = -1.6
    negative[10] = -3.0 + 1e-3
    assert sampler.choose(step(sampler, negative), 0) == 10


def test_presence_is_subtracted_once_and_frequency_per_occurrence():
    sampler = new_sampler(
        temperature=0.0, presence_penalty=1.0, frequency_penalty=0.25, prompt_ids=[7]
    )
    likes_7 = row(t7=1.4, t8=0.2)
    assert sampler.choose(step(sampler, likes_7), 0) == 7
    pick = sampler.pick_for_step()
    assert pick is not None
    assert pick.bias is not None
    assert pick.bias[7] == -1.25
    assert sampler.choose(step(sampler, likes_7), 0) == 8
    sampler.record(7)
    assert pick.bias[7] == -1.5
    assert pick.bias[8] == -1.25


def test_logit_bias_is_added_and_kept_beside_penalties():
    sampler = new_sampler(temperature=0.0, logit_bias={3: 5.0}, frequency_penalty=1.0)
    chosen = [sampler.choose(step(sampler, row(t7=1.5)), 0) for _ in range(5)]
    assert chosen == [3, 3, 3, 3, 7]


@pytest.mark.parametrize("token_id", [-1, VOCAB_SIZE])
def test_a_bias_of_a_token_that_does_not_exist_is_refused(token_id):
    with pytest.raises(InvalidRequest, match="not in the model's vocabulary of 100") as caught:
        new_sampler(logit_bias={token_id: 1.0})
    assert caught.value.field == f"sampling.logit_bias[{token_id}]"


def test_stop_tokens_are_masked_until_there_are_enough_tokens():
    stop = StopConditions(max_tokens=9, stop_token_ids=frozenset({7, 10**6}), min_tokens=2)
    sampler = new_sampler(stop, temperature=0.0)
    likes_7 = row(t7=9.0, t8=1.0)
    assert [sampler.choose(step(sampler, likes_7), 0) for _ in range(3)] == [8, 8, 7]
    assert sampler.pick_for_step() is None


def test_a_masked_stop_token_keeps_its_own_bias():
    stop = StopConditions(max_tokens=9, stop_token_ids=frozenset({7}), min_tokens=1)
    sampler = new_sampler(stop, temperature=0.0, logit_bias={7: -2.0}, frequency_penalty=0.5)
    sampler.record(8)
    pick = sampler.pick_for_step()
    assert pick is not None
    assert pick.bias is not None
    assert (pick.bias[7], pick.bias[8]) == (-2.0, -0.5)


def test_equal_seeds_give_equal_tokens_and_no_seed_gives_others():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, VOCAB_SIZE)) * 0.1

    def text(**params):
        sampler = new_sampler(**params)
        return [sampler.choose(step(sampler, raw), 0) for raw in rows]

    assert text(seed=5) == text(seed=5)
    assert text(seed=5) != text(seed=6)
    assert text() != text()


def test_every_token_takes_one_draw_so_that_filters_keep_the_sequence():
    certain, open_row = row(t7=50.0), list(np.linspace(0, 1, VOCAB_SIZE))
    one, other = new_sampler(seed=1), new_sampler(seed=1, top_k=1)
    one.choose(step(one, certain), 0)
    other.choose(step(other, open_row), 0)
    other._params = one._params  # the same filters from here on
    assert one.choose(step(one, open_row), 0) == other.choose(step(other, open_row), 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_the_engines_fault(bad):
    for sampler in (new_sampler(temperature=0.0), new_sampler(seed=1)):
        with (
            np.errstate(invalid="ignore"),
            pytest.raises(BackendFault, match="line 0 of a step holds logits that are NaN"),
        ):
            sampler.choose(step(sampler, row(t7=bad)), 0)


def test_processing_that_gives_no_number_is_the_engines_fault():
    sampler = new_sampler(seed=1, temperature=0.5)
    result = step(sampler, row(t7=1.0))
    result.log_normalizer[0] = math.nan
    with pytest.raises(BackendFault):
        sampler.choose(result, 0)


def test_a_whole_step_can_be_checked_at_once():
    sampler = new_sampler(temperature=0.0)
    check_finite(step(sampler, row()))
    with np.errstate(invalid="ignore"):
        result = pick_candidates(
            np.asarray([row(), row(t1=math.nan)], np.float32), [None, None], num_candidates=8
        )
    with pytest.raises(BackendFault, match="line 1 of a step"):
        check_finite(result)


def test_a_request_that_masks_everything_is_refused():
    stop = StopConditions(max_tokens=9, stop_token_ids=frozenset(range(VOCAB_SIZE)), min_tokens=1)
    sampler = new_sampler(stop, seed=1)
    with pytest.raises(InvalidRequest, match="every token is masked"):
        sampler.choose(step(sampler, row()), 0)


def test_a_draw_behind_the_candidates_takes_the_whole_row():
    sampler = new_sampler(seed=3)
    result = step(sampler, row())  # all alike: 8 candidates hold 8 % of the mass
    chosen = {sampler.choose(result, 0) for _ in range(2000)}
    assert chosen == set(range(VOCAB_SIZE))


def test_the_whole_row_is_processed_like_the_engine_does():
    sampler = new_sampler(seed=3, logit_bias={5: -1e9}, temperature=2.0)
    result = step(sampler, row())
    chosen = {sampler.choose(result, 0) for _ in range(2000)}
    assert chosen == set(range(VOCAB_SIZE)) - {5}


def test_logprobs_are_the_models_own():
    tokenizer = byte_level_tokenizer()
    logits = row(t65=3.0, t66=2.0, t67=1.0)
    normalizer = math.log(sum(map(math.exp, logits)))
    for sampler in (
        new_sampler(temperature=0.0),
        new_sampler(temperature=0.3, seed=1),
        new_sampler(temperature=0.3, logit_bias={65: -100.0, 90: 50.0}),
        new_sampler(temperature=0.0, repetition_penalty=9.0, prompt_ids=[65]),
    ):
        result = step(sampler, logits)
        entry = sampler.logprob(result, 0, 66, 2, tokenizer)
        assert (entry.token_id, entry.token) == (66, b"B")
        assert entry.logprob == pytest.approx(2.0 - normalizer, abs=1e-5)
        assert [(top.token_id, top.token) for top in entry.top] == [(65, b"A"), (66, b"B")]
        assert entry.top[0].logprob == pytest.approx(3.0 - normalizer, abs=1e-5)
        assert entry.top[0].top == ()
        assert sampler.logprob(result, 0, 66, 0, tokenizer).top == ()


def test_more_logprobs_than_candidates_come_from_the_whole_row():
    tokenizer = byte_level_tokenizer()
    sampler = new_sampler(temperature=0.0)
    logits = list(np.linspace(0, 1, VOCAB_SIZE))
    entry = sampler.logprob(step(sampler, logits), 0, 0, 20, tokenizer)
    assert [top.token_id for top in entry.top] == list(range(99, 79, -1))
    every = sampler.logprob(step(sampler, logits), 0, 0, 1000, tokenizer)
    assert [top.token_id for top in every.top] == list(range(99, -1, -1))
    ties = sampler.logprob(step(sampler, row()), 0, 0, 20, tokenizer)
    assert [top.token_id for top in ties.top] == list(range(20))
