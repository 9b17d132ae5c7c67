from __future__ import annotations

import math

import pytest

from leptond.errors import InvariantViolation
from leptond.scheduler import ComputeBudget
from tests.unit.scheduler.rig import SimulatedClock


def test_a_lease_is_free_again_after_its_block():
    budget = ComputeBudget(2)
    assert budget.num_cores == 2
    for _ in range(2):
        with budget.lease("a"):
            budget.check_integrity()
    budget.check_integrity()


def test_a_lease_comes_back_when_its_block_raises():
    budget = ComputeBudget(1)
    with pytest.raises(ZeroDivisionError), budget.lease("a"):
        _ = 1 / 0
    with budget.lease("b"):
        assert budget.num_waiting == 0


def test_leases_of_fewer_cores_are_held_at_once():
    budget = ComputeBudget(3)
    with budget.lease("a", num_cores=1), budget.lease("b", num_cores=2):
        budget.check_integrity()


def test_more_cores_than_there_are_is_all_of_them():
    with ComputeBudget(2).lease("a", num_cores=9) as lease:
        assert lease.num_cores == 2


def test_an_owner_that_holds_a_lease_cannot_take_another():
    budget = ComputeBudget(2)
    with (
        budget.lease("a", num_cores=1),
        pytest.raises(InvariantViolation, match="second"),
        budget.lease("a", num_cores=1),
    ):
        pass
    with budget.lease("a"):
        budget.check_integrity()


def test_a_budget_has_a_core():
    with pytest.raises(ValueError, match="num_cores is 0"):
        ComputeBudget(0)


def test_damage_is_noticed():
    budget = ComputeBudget(2)
    budget._num_free = 1
    with pytest.raises(InvariantViolation):
        budget.check_integrity()


def take_turn(budget: ComputeBudget, clock: SimulatedClock, owner: str, seconds: float) -> None:
    with budget.lease(owner):
        clock.sleep(seconds)


def test_the_turn_of_others_is_the_shortest_of_those_who_use_the_cores_now():
    clock = SimulatedClock()
    budget = ComputeBudget(2, clock=clock)
    assert budget.turn_of_others_s("bulk") == math.inf
    take_turn(budget, clock, "bulk", 0.2)
    assert budget.turn_of_others_s("bulk") == math.inf
    take_turn(budget, clock, "translator", 0.05)
    take_turn(budget, clock, "chat", 0.01)
    assert budget.turn_of_others_s("bulk") == pytest.approx(0.01)
    assert budget.turn_of_others_s("chat") == pytest.approx(0.05)
    clock.sleep(0.3)
    assert budget.turn_of_others_s("bulk") == math.inf


def test_the_turn_of_another_is_an_average():
    clock = SimulatedClock()
    budget = ComputeBudget(2, clock=clock)
    take_turn(budget, clock, "chat", 0.01)
    take_turn(budget, clock, "chat", 0.02)
    assert budget.turn_of_others_s("bulk") == pytest.approx(0.012)
