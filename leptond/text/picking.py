"""Which token a distribution gives, for one number drawn from [0, 1): pure functions.

The draw goes through the cumulative distribution of the tokens that the filters keep, likeliest
first and, of equals, the lower id first. Only when nothing is filtered and the draw falls behind
the candidates are the other tokens walked in the order of their ids: the distribution is the same
and a sort of the whole row is spared.

Called on the worker thread.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import exp, log
from operator import neg

import numpy as np
import numpy.typing as npt

from leptond.types import SamplingParams

__all__ = ["pick_from_candidates", "pick_from_row"]

_SLACK = 1e-3  # far above what float32 logits are rounded by
_LEVELS_PER_LOGIT = 4
_NUM_LEVELS = 100  # a nucleus that reaches below the last is sorted out of the whole row


def pick_from_candidates(
    logits: Sequence[float],
    log_normalizer: float,
    params: SamplingParams,
    draw: float,
    *,
    vocab_size: int,
) -> int | None:
    """Return the place of the drawn token among the candidates.

    Args:
        logits: of the candidates, best first, as processed; the first is finite.
        log_normalizer: logsumexp of the whole processed row.
        params: top_k, top_p and min_p are read.
        draw: from [0, 1).
        vocab_size: length of the row.

    Returns:
        None when the candidates do not decide it: the whole row is needed.
    """
    best = logits[0]
    weights = [exp(logit - best) for logit in logits]
    cumulative = list(accumulate(weights))
    total = exp(log_normalizer - best)
    is_whole = len(weights) == vocab_size
    if 0 < params.top_k < vocab_size:
        if params.top_k <= len(weights):
            del weights[params.top_k :], cumulative[params.top_k :]
            total = cumulative[-1]
            is_whole = True
        elif params.top_p < 1.0:
            return None  # what the top k weigh together is not known
    num_kept = _num_kept(weights, cumulative, total, params, is_whole=is_whole)
    if num_kept is not None:
        return _place(cumulative, num_kept, draw * cumulative[num_kept - 1])
    if _is_filtered(params, vocab_size) or draw * total >= cumulative[-1]:
        return None
    return _place(cumulative, len(cumulative), draw * total)


def pick_from_row(
    logits: npt.NDArray[np.float32],
    candidate_ids: npt.NDArray[np.int64],
    params: SamplingParams,
    draw: float,
) -> int:
    """Return the drawn token.

    Args:
        logits: float32 `[vocab_size]`, the whole processed row.
        candidate_ids: int64 `[k]`, its best tokens, best first.
        params: top_k, top_p and min_p are read.
        draw: from [0, 1).
    """
    vocab_size = len(logits)
    weights = np.exp(logits - logits.max())
    if not _is_filtered(params, vocab_size):
        ahead = weights[candidate_ids]
        weights[candidate_ids] = 0.0
        cumulative = np.cumsum(np.concatenate([ahead, weights]), dtype=np.float64)
        place = _place(cumulative, len(cumulative), draw * cumulative[-1])
        return int(candidate_ids[place]) if place < len(ahead) else place - len(ahead)

    total = float(weights.sum(dtype=np.float64))
    ids = np.flatnonzero(logits >= _floor(logits, weights, total, params))
    ids = ids[np.argsort(-logits[ids], kind="stable")]
    if 0 < params.top_k < vocab_size:
        ids = ids[: params.top_k]
    weights = weights[ids]
    cumulative = np.cumsum(weights, dtype=np.float64)
    if 0 < params.top_k < vocab_size:
        total = float(cumulative[-1])
    num_kept = _num_kept(weights, cumulative, total, params, is_whole=True) or len(ids)
    return int(ids[_place(cumulative, num_kept, draw * cumulative[num_kept - 1])])


def _is_filtered(params: SamplingParams, vocab_size: int) -> bool:
    return 0 < params.top_k < vocab_size or params.top_p < 1.0 or params.min_p > 0.0


def _floor(
    logits: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    total: float,
    params: SamplingParams,
) -> float:
    """Return a logit below which no token is kept, to sort few tokens instead of all.

    Args:
        logits: the whole row.
        weights: `exp(logit - best)` of each.
        total: their sum.
        params: at least one filter is on.
    """
    if 0 < params.top_k < len(logits):
        place = len(logits) - params.top_k
        return float(np.partition(logits, place)[place])
    best = float(logits.max())
    floors = [-np.inf]
    if params.top_p < 1.0:
        # The weight of each level of logits, from the best level down, and of all above it.
        levels = np.minimum((best - logits) * _LEVELS_PER_LOGIT, _NUM_LEVELS).astype(np.int32)
        mass = np.cumsum(np.bincount(levels, weights))
        level = int(np.searchsorted(mass, params.top_p * total))
        if level < _NUM_LEVELS:
            floors.append(best - (level + 1) / _LEVELS_PER_LOGIT - _SLACK)
    if params.min_p > 0.0:
        floors.append(best + log(params.min_p) - _SLACK)
    return max(floors)


def _num_kept(
    weights: Sequence[float] | npt.NDArray[np.float32],
    cumulative: Sequence[float] | npt.NDArray[np.float64],
    total: float,
    params: SamplingParams,
    *,
    is_whole: bool,
) -> int | None:
    """Return how many tokens top_p and min_p keep, of those that top_k kept.

    Args:
        weights: of the likeliest tokens, relative to the first, which has 1.
        cumulative: their running sums.
        total: the weight of all that top_k kept.
        params: top_p and min_p are read.
        is_whole: `weights` are all that top_k kept.

    Returns:
        None when more tokens are kept than are there.
    """
    num = len(weights)
    if params.top_p < 1.0:
        nucleus = bisect_left(cumulative, params.top_p * total) + 1
        if nucleus <= num:
            num, is_whole = nucleus, True
    if params.min_p > 0.0:
        likely = bisect_right(weights, -params.min_p, key=neg)
        if likely < num:
            num, is_whole = max(likely, 1), True
    return num if is_whole else None


def _place(
    cumulative: Sequence[float] | npt.NDArray[np.float64], num_kept: int, target: float
) -> int:
    """Return the first place whose running sum is beyond `target`; never one without weight."""
    place = bisect_right(cumulative, target, 0, num_kept)
    # A draw just under 1 may be rounded up to the very end.
    return place if place < num_kept else bisect_left(cumulative, cumulative[num_kept - 1])
