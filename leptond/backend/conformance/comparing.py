"""What answers are held against: the arithmetic of picks in float64, and closeness."""
# ruff: noqa: S101 - a test suite: asserts are what it is for

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.backend.rows import RowPick, StepResult

__all__ = ["assert_answers_itself", "assert_close", "log_normalizer", "processed_logits"]

FloatArray = npt.NDArray[Any]

_MASKED_BELOW = -1e30
"""An engine may mask with the lowest finite number in place of minus infinity."""


def processed_logits(raw: FloatArray, pick: RowPick | None) -> FloatArray:
    """The documentation of `RowPick`, written out: float64 `[vocab_size]`."""
    logits = raw.astype(np.float64)
    if pick is None:
        return logits
    if pick.repetition is not None:
        repetition = pick.repetition.astype(np.float64)
        logits = np.where(logits > 0, logits / repetition, logits * repetition)
    if pick.bias is not None:
        logits = logits + pick.bias
    return logits / pick.temperature


def log_normalizer(logits: FloatArray) -> float:
    """The log of the summed exponentials of one line."""
    peak = logits.max()
    return float(np.log(np.exp(logits - peak).sum()) + peak)


def assert_close(actual: FloatArray, expected: FloatArray, tolerance: float, what: str) -> None:
    """Same shape, and no value further away than `tolerance`; masked values are all alike."""
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    left, right = (np.where(x < _MASKED_BELOW, -np.inf, x) for x in (actual, expected))
    is_far = ~np.isclose(left, right, rtol=0, atol=tolerance)
    where = np.argwhere(is_far)
    assert not where.size, (
        f"{what}: {len(where)} values are further off than {tolerance}, "
        f"the first at {where[0].tolist()}: {actual[is_far][0]} instead of {expected[is_far][0]}"
    )


def assert_answers_itself(
    result: StepResult, line: int, pick: RowPick | None, tolerance: float
) -> None:
    """Candidates and normalisers of one line follow from its own raw logits and pick.

    The candidates are the k best of the processed logits, best first; which of two that are
    closer than `tolerance` comes first is left open.
    """
    raw = result.logits[line]
    expected = processed_logits(raw, pick)
    ids, logits = result.candidate_ids[line], result.candidate_logits[line]
    assert len(set(ids.tolist())) == len(ids), f"line {line}: a candidate is listed twice"
    assert_close(logits, expected[ids], tolerance, f"line {line}: logits of the candidates")
    assert (logits[:-1] >= logits[1:]).all(), f"line {line}: candidates are not best first"
    best_other = np.delete(expected, ids).max(initial=-np.inf)
    assert logits[-1] >= best_other - tolerance, f"line {line}: a better token is left out"
    for name, actual, wanted in (
        ("log_normalizer", result.log_normalizer[line], log_normalizer(expected)),
        ("raw_log_normalizer", result.raw_log_normalizer[line], log_normalizer(raw.astype(float))),
    ):
        assert abs(actual - wanted) <= tolerance, f"line {line}: {name} {actual}, not {wanted}"
