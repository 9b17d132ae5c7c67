"""Logits as scores. Pure numpy, float64 inside; shapes are `[num_inputs, num_labels]`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.errors import InvariantViolation

__all__ = ["best_first", "scores_of"]

Scores = npt.NDArray[np.float64]


def scores_of(logits: npt.NDArray[np.floating[Any]], activation: str) -> Scores:
    """Apply "softmax", "sigmoid" or "identity" to each row."""
    values = logits.astype(np.float64)
    match activation:
        case "softmax":
            powers = np.exp(values - values.max(axis=-1, keepdims=True))
            softmax: Scores = powers / powers.sum(axis=-1, keepdims=True)
            return softmax
        case "sigmoid":
            # Of large negative numbers the first form overflows, of large positive ones this one
            # would; each is taken where it does not.
            small = np.exp(-np.abs(values))
            sigmoid: Scores = np.where(values >= 0, 1, small) / (1 + small)
            return sigmoid
        case "identity":
            return values
    raise InvariantViolation(f"no activation {activation}")


def best_first(scores: Scores, count: int | None) -> list[int]:
    """Indexes of one row, highest score first, equal ones in their order; at most `count`."""
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    return order[:count]
