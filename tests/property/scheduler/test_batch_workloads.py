"""Random workloads for whole calls: nothing starves, no budget is exceeded, all are told once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leptond.scheduler.batch_plan import BatchBounds, plan_batch
from tests.property.scheduler.batch_workloads import BatchSimulation, Workload, batch_workloads


@dataclass(frozen=True)
class Row:
    serial: int
    cost_tokens: int
    bucket: int
    options: Mapping[str, int]


@st.composite
def waiting_rows(draw: st.DrawFn) -> list[Row]:
    shapes = st.tuples(st.integers(1, 60), st.integers(0, 2), st.integers(0, 2))
    return [
        Row(serial, cost, bucket, {"option": option})
        for serial, (cost, bucket, option) in enumerate(draw(st.lists(shapes, max_size=30)))
    ]


@pytest.mark.timeout(300)
@settings(max_examples=700, suppress_health_check=[HealthCheck.too_slow])
@given(batch_workloads())
def test_every_request_ends_once_with_its_own_answers(workload: Workload):
    simulation = BatchSimulation(workload)
    simulation.run()
    simulation.check_end()


@given(waiting_rows(), st.integers(1, 8), st.integers(1, 120))
def test_a_plan_serves_the_first_keeps_its_bounds_and_leaves_no_room(
    rows: list[Row], max_rows: int, token_budget: int
):
    bounds = BatchBounds(max_rows, token_budget)
    plan = plan_batch(rows, bounds)
    assert plan == plan_batch(iter(rows), bounds)
    assert plan[:1] == rows[:1]
    if not plan:
        return
    dearest = max(row.cost_tokens for row in plan)
    assert len(plan) <= max_rows
    assert len(plan) == 1 or len(plan) * dearest <= token_budget
    assert [row.serial for row in plan] == sorted({row.serial for row in plan})
    alike = [row for row in rows if (row.bucket, row.options) == (plan[0].bucket, plan[0].options)]
    assert set(plan_ids(plan)) <= set(plan_ids(alike))
    if len(plan) < max_rows:
        for row in alike:
            fits = (len(plan) + 1) * max(dearest, row.cost_tokens) <= token_budget
            assert row in plan or not fits


def plan_ids(rows: list[Row]) -> list[int]:
    return [row.serial for row in rows]
