from __future__ import annotations

import numpy as np
import pytest

from leptond.backend import RowPick
from leptond.backend.picking import log_sum_exp, pick_candidates, process_logits

RAW = np.array([[2.0, -1.0, 0.5, 3.0]], np.float32)


def test_repetition_divides_positive_logits_and_multiplies_negative_ones():
    pick = RowPick(repetition=np.array([2, 2, 1, 1.5], np.float32))
    assert process_logits(RAW[0], pick).tolist() == [1.0, -2.0, 0.5, 2.0]


def test_bias_comes_after_repetition_and_before_temperature():
    pick = RowPick(
        temperature=0.5,
        repetition=np.array([2, 2, 1, 1.5], np.float32),
        bias=np.array([1, 0, 0, -2], np.float32),
    )
    assert process_logits(RAW[0], pick).tolist() == [4.0, -4.0, 1.0, 0.0]


def test_candidates_are_the_best_processed_logits_best_first():
    result = pick_candidates(RAW, [RowPick(temperature=0.5)], num_candidates=3)
    assert result.candidate_ids.tolist() == [[3, 0, 2]]
    assert result.candidate_logits.tolist() == [[6.0, 4.0, 1.0]]
    assert result.logits is RAW


def test_of_equal_logits_the_lower_token_comes_first():
    result = pick_candidates(np.zeros((2, 5), np.float32), [None, None])
    assert result.candidate_ids.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_each_line_has_its_own_pick():
    raw = np.repeat(RAW, 2, axis=0)
    result = pick_candidates(raw, [None, RowPick(temperature=2.0)])
    assert result.candidate_logits[:, 0].tolist() == [3.0, 1.5]
    assert result.raw_log_normalizer[0] == result.raw_log_normalizer[1]
    assert result.log_normalizer[0] == pytest.approx(np.log(np.exp(RAW).sum()))
    assert result.log_normalizer[1] == pytest.approx(np.log(np.exp(RAW / 2).sum()))


def test_nothing_wanted_gives_no_lines():
    result = pick_candidates(np.empty((0, 9), np.float32), [])
    assert result.candidate_ids.shape == (0, 9)
    assert result.log_normalizer.shape == (0,)


def test_sums_of_exponentials_neither_overflow_nor_need_a_finite_logit():
    lines = np.array([[1000, 1000], [-1000, -1000], [-np.inf, -np.inf], [-np.inf, 3]], np.float32)
    expected = [1000 + np.log(2), -1000 + np.log(2), -np.inf, 3]
    assert log_sum_exp(lines) == pytest.approx(expected)
