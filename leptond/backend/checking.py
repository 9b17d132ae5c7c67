"""Refuses a step with a bad row before anything ran, as `StepSession.step` promises.

Called by the fake engine and by plug-ins first thing in `step`, on the session's worker thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from leptond.backend.rows import RowPick, StepRow
from leptond.errors import InvalidRequest, RequestTooLarge

__all__ = ["check_rows"]


def check_rows(
    rows: Sequence[StepRow],
    length: Callable[[int], int],
    *,
    vocab_size: int,
    max_tokens: int,
) -> None:
    """Check every row of a step against the contract of `StepRow` and `RowPick`.

    Args:
        rows: the rows of the step.
        length: tokens that an open slot holds, such as the session's own `length`; it raises
            `InvalidRequest` for a slot that is not open.
        vocab_size: token ids are below it; length of bias and repetition.
        max_tokens: most tokens that a slot may hold.

    Raises:
        InvalidRequest: naming the first bad row's field; `RequestTooLarge` when it does not fit.
    """
    seen: set[int] = set()
    for row in rows:
        num_held = length(row.slot)
        if row.slot in seen:
            raise InvalidRequest(f"slot {row.slot} has two rows in one step", field="slot")
        seen.add(row.slot)
        _check_tokens(row, num_held, vocab_size, max_tokens)
        if row.pick is not None:
            _check_pick(row.pick, vocab_size)


def _check_tokens(row: StepRow, num_held: int, vocab_size: int, max_tokens: int) -> None:
    num_new = len(row.token_ids)
    if num_new == 0:
        raise InvalidRequest("a row needs at least one token", field="token_ids")
    if not 0 <= row.num_logits <= num_new:
        raise InvalidRequest(f"{row.num_logits} logits of {num_new} new tokens", field="num_logits")
    if num_held + num_new > max_tokens:
        raise RequestTooLarge(
            f"slot {row.slot} would hold {num_held + num_new} tokens; at most {max_tokens} fit",
            field="token_ids",
        )
    for token in (min(row.token_ids), max(row.token_ids)):
        if not 0 <= token < vocab_size:
            raise InvalidRequest(
                f"token {token} is not among the {vocab_size} of the vocabulary", field="token_ids"
            )


def _check_pick(pick: RowPick, vocab_size: int) -> None:
    if not 0 < pick.temperature < math.inf:
        raise InvalidRequest(f"a temperature of {pick.temperature}", field="pick.temperature")
    for name, values in (("repetition", pick.repetition), ("bias", pick.bias)):
        if values is not None and (values.shape != (vocab_size,) or values.dtype != np.float32):
            raise InvalidRequest(
                f"{name} must be float32 [{vocab_size}], not {values.dtype} {list(values.shape)}",
                field=f"pick.{name}",
            )
