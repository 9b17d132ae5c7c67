from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from leptond.scheduler.batch_plan import BatchBounds, length_bucket, plan_batch, prompt_bucket

BOUNDS = BatchBounds(max_rows=4, token_budget=100)


@dataclass(frozen=True)
class Row:
    cost_tokens: int
    options: Mapping[str, Any] = field(default_factory=lambda: {"task": "embed"})

    @property
    def bucket(self) -> int:
        return length_bucket(self.cost_tokens)


def costs(rows: list[Row], bounds: BatchBounds = BOUNDS) -> list[int]:
    return [row.cost_tokens for row in plan_batch(rows, bounds)]


def test_nothing_waits_nothing_runs():
    assert plan_batch([], BOUNDS) == []


def test_rows_alike_share_a_run_up_to_its_rows_in_their_order():
    assert costs([Row(cost) for cost in (3, 9, 1, 16, 5)]) == [3, 9, 1, 16]


def test_padding_counts_against_the_budget():
    assert costs([Row(17), Row(32), Row(32), Row(32)]) == [17, 32, 32]
    assert costs([Row(25)] * 5) == [25] * 4
    assert costs([Row(26)] * 5) == [26] * 3


def test_a_row_that_does_not_fit_is_passed_over_for_one_that_does():
    bounds = BatchBounds(max_rows=3, token_budget=60)
    assert costs([Row(20), Row(31), Row(18), Row(19)], bounds) == [20, 18, 19]


def test_a_row_beyond_the_budget_runs_alone():
    assert costs([Row(101), Row(101), Row(2)]) == [101]


def test_a_row_of_another_length_waits():
    assert costs([Row(16), Row(17), Row(2)]) == [16, 2]
    assert costs([Row(17), Row(16), Row(32)]) == [17, 32]


def test_a_row_of_other_options_waits():
    other = Row(5, {"task": "classify"})
    assert plan_batch([Row(4), other, Row(6)], BOUNDS) == [Row(4), Row(6)]
    assert plan_batch([other, Row(4)], BOUNDS) == [other]


@pytest.mark.parametrize(
    ("num_tokens", "bucket"), [(1, 4), (16, 4), (17, 5), (32, 5), (33, 6), (64, 6), (65, 7)]
)
def test_buckets_end_at_powers_of_two(num_tokens: int, bucket: int):
    assert length_bucket(num_tokens) == bucket


def test_prompts_of_a_bucket_are_near_equal():
    assert [prompt_bucket(length) for length in (1, 16, 17, 32, 33)] == [0, 0, 1, 1, 2]
