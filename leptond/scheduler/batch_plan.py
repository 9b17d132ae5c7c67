"""Which rows share the next run of an engine that answers in whole calls. Pure.

I1  The first row given is in the plan: whoever is first in line is served by the next run.
I2  All rows of a plan have equal options and lengths of one bucket.
I3  A plan costs at most the budget, unless it is a single row; padding counts.
I4  Within a plan rows keep the order given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

__all__ = ["BatchBounds", "PlannedRow", "length_bucket", "plan_batch", "prompt_bucket"]

_SHORT_TOKENS = 16
"""Rows up to here are of one bucket: the fixed cost of a run is more than their padding."""

_PROMPT_STEP_TOKENS = 16
"""Prompts of a run differ by less: what an engine has in front of the common part of several
prompts it computes token by token, as CTranslate2's `generate_batch` does."""


class PlannedRow(Protocol):
    """What the plan looks at."""

    @property
    def cost_tokens(self) -> int:
        """What it takes by itself, at least 1."""
        ...

    @property
    def bucket(self) -> int:
        """Its length bucket."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """Its options."""
        ...


@dataclass(frozen=True, slots=True)
class BatchBounds:
    """What one run may hold.

    Attributes:
        max_rows: at least 1.
        token_budget: rows times the cost of the dearest, since all are padded to it.
    """

    max_rows: int
    token_budget: int


RowT = TypeVar("RowT", bound=PlannedRow)


def length_bucket(num_tokens: int) -> int:
    """Return the bucket of an input: a power of two, so that padding is less than half a run."""
    return max(num_tokens - 1, _SHORT_TOKENS - 1).bit_length()


def prompt_bucket(num_tokens: int) -> int:
    """Return the bucket of a prompt that is to be continued: near-equal lengths only."""
    return (num_tokens - 1) // _PROMPT_STEP_TOKENS


def plan_batch(rows: Iterable[RowT], bounds: BatchBounds) -> list[RowT]:
    """Choose the rows of the next run from those that wait, most urgent first.

    Later rows fill what is left beside the first. One that does not fit is passed over, which
    does not make it wait any longer than it would.
    """
    chosen: list[RowT] = []
    dearest = 0
    for row in rows:
        if chosen:
            first = chosen[0]
            if row.bucket != first.bucket or row.options != first.options:
                continue
            if (len(chosen) + 1) * max(dearest, row.cost_tokens) > bounds.token_budget:
                continue
        chosen.append(row)
        dearest = max(dearest, row.cost_tokens)
        if len(chosen) == bounds.max_rows or (len(chosen) + 1) * dearest > bounds.token_budget:
            break
    return chosen
