"""Raw logits to a `StepResult`, in numpy: for engines whose graph ends at the logits.

Called on a session's worker thread by the fake engine and by plug-ins of small models. An engine
with a large vocabulary does this in its graph: a numpy top 64 of 16 × 49 152 logits takes 8 ms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from leptond.backend.rows import RowPick, StepResult

__all__ = ["log_sum_exp", "pick_candidates", "process_logits"]

FloatArray = npt.NDArray[np.float32]

NUM_CANDIDATES = 64
"""Enough to hold nearly every nucleus; the sampler reads the full row where it is not."""


def process_logits(raw: FloatArray, pick: RowPick) -> FloatArray:
    """Repetition, bias and temperature, in the order that `RowPick` states.

    `raw` is float32 `[vocab_size]` or `[lines, vocab_size]`; the result is a new array.
    """
    logits = raw
    if pick.repetition is not None:
        logits = np.where(logits > 0, logits / pick.repetition, logits * pick.repetition)
    if pick.bias is not None:
        logits = logits + pick.bias
    return np.divide(logits, pick.temperature, dtype=np.float32)


def log_sum_exp(logits: FloatArray) -> FloatArray:
    """Natural log of the summed exponentials of each line of `[lines, vocab_size]`: `[lines]`."""
    peak = logits.max(axis=-1, keepdims=True)
    # A line that is masked whole has no finite peak: its sum is 0 and its log minus infinity.
    peak = np.where(np.isfinite(peak), peak, np.float32(0))
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(logits - peak).sum(axis=-1)) + peak[..., 0], np.float32)


def pick_candidates(
    raw: FloatArray, picks: Sequence[RowPick | None], num_candidates: int = NUM_CANDIDATES
) -> StepResult:
    """Answer `len(picks)` wanted positions.

    Args:
        raw: float32 `[lines, vocab_size]`; becomes `StepResult.logits` as it is.
        picks: one per line of `raw`; None takes the raw logits.
        num_candidates: k, cut to the vocabulary.
    """
    processed = raw
    if any(pick is not None for pick in picks):
        processed = raw.copy()
        for line, pick in enumerate(picks):
            if pick is not None:
                processed[line] = process_logits(raw[line], pick)
    # Stable: of equal logits the lower token id comes first, whatever the batch.
    order = np.argsort(-processed, axis=-1, kind="stable")[:, :num_candidates]
    raw_log_normalizer = log_sum_exp(raw)
    return StepResult(
        candidate_ids=order,
        candidate_logits=np.take_along_axis(processed, order, axis=-1),
        log_normalizer=raw_log_normalizer if processed is raw else log_sum_exp(processed),
        raw_log_normalizer=raw_log_normalizer,
        logits=raw,
    )
