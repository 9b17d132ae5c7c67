"""Sampling as it is defined, over the whole vocabulary, without haste: the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence

from leptond.types import SamplingParams


def processed(
    logits: Sequence[float], params: SamplingParams, prompt: Sequence[int], answer: Sequence[int]
) -> list[float]:
    """Penalties, bias and temperature, token by token."""
    result = []
    for token_id, raw in enumerate(logits):
        logit = raw
        if token_id in prompt or token_id in answer:
            penalty = params.repetition_penalty
            logit = logit / penalty if logit > 0 else logit * penalty
        count = list(answer).count(token_id)
        logit -= params.presence_penalty * (count > 0) + params.frequency_penalty * count
        logit += params.logit_bias.get(token_id, 0.0)
        result.append(logit / (params.temperature or 1.0))
    return result


def kept(logits: Sequence[float], params: SamplingParams) -> list[tuple[int, float]]:
    """The tokens that top_k, top_p and min_p leave, likeliest first, with their weights."""
    order = sorted(range(len(logits)), key=lambda token_id: (-logits[token_id], token_id))
    if params.top_k:
        order = order[: params.top_k]
    best = logits[order[0]]
    tokens = [(token_id, math.exp(logits[token_id] - best)) for token_id in order]
    if params.top_p < 1.0:
        total = math.fsum(weight for _, weight in tokens)
        nucleus, mass = [], 0.0
        for token in tokens:
            nucleus.append(token)
            mass += token[1]
            if mass >= params.top_p * total:
                break
        tokens = nucleus
    return [token for token in tokens if token[1] >= params.min_p * tokens[0][1]]


def drawn(tokens: Sequence[tuple[int, float]], draw: float) -> int:
    """The token at `draw` of the whole weight."""
    target = draw * math.fsum(weight for _, weight in tokens)
    mass = 0.0
    for token_id, weight in tokens:
        mass += weight
        if mass > target:
            return token_id
    return tokens[-1][0]


def unfiltered_order(
    tokens: Sequence[tuple[int, float]], num_candidates: int
) -> list[tuple[int, float]]:
    """The order of an unfiltered draw: the candidates, then the others by id."""
    return [*tokens[:num_candidates], *sorted(tokens[num_candidates:])]
