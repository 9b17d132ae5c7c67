from __future__ import annotations

import threading

import pytest

from leptond.errors import InvariantViolation
from leptond.scheduler import ComputeBudget
from tests.unit.scheduler.rig import SimulatedClock

PATIENCE_S = 20.0


class Rival(threading.Thread):
    """Takes one lease, notes it, and gives it back."""

    def __init__(self, budget: ComputeBudget, log: list[str], name: str, priority: int = 0) -> None:
        super().__init__(name=name)
        self._budget, self._log, self._priority = budget, log, priority
        self.start()

    def run(self) -> None:
        with self._budget.lease(self.name, self._priority):
            self._log.append(self.name)


def await_waiters(budget: ComputeBudget, count: int) -> None:
    """Spin until so many leases wait: they are about to, so it is short."""
    pause = threading.Event()
    for _ in range(2_000):
        if budget.num_waiting == count:
            return
        pause.wait(0.005)
    raise AssertionError(f"{budget.num_waiting} of {count} wait")


def test_a_lease_that_gives_way_to_nobody_is_kept():
    budget = ComputeBudget(2)
    with budget.lease("long") as lease:
        due = lease.due
        lease.give_way()
        assert lease.due == due
        budget.check_integrity()


def test_who_waits_has_its_turn_when_a_lease_gives_way():
    budget = ComputeBudget(2)
    log: list[str] = []
    with budget.lease("long") as lease:
        rival = Rival(budget, log, "chat")
        await_waiters(budget, 1)
        assert log == []
        lease.give_way()
        assert log == ["chat"]
        with pytest.raises(InvariantViolation, match="second"), budget.lease("long"):
            pass
        budget.check_integrity()
    rival.join(PATIENCE_S)
    budget.check_integrity()


def test_a_lease_comes_back_behind_all_that_are_due_before_it_asked_again():
    clock = SimulatedClock()
    budget = ComputeBudget(1, clock=clock, priority_step_s=0.1)
    log: list[str] = []
    with budget.lease("long", priority=1) as lease:
        clock.sleep(1.0)
        rivals = [Rival(budget, log, "early")]
        await_waiters(budget, 1)
        clock.sleep(0.05)
        rivals.append(Rival(budget, log, "late"))
        await_waiters(budget, 2)
        clock.sleep(0.02)
        # It is due 0.1 s before now for its priority: before `late`, not before who was granted.
        lease.give_way()
        assert log == ["early"]
        clock.sleep(0.5)
        lease.give_way()
        assert log == ["early", "late"]
    for rival in rivals:
        rival.join(PATIENCE_S)


def test_a_narrow_lease_comes_back_although_a_wide_one_waited():
    budget = ComputeBudget(2)
    log: list[str] = []
    with budget.lease("narrow", num_cores=1) as lease:
        rival = Rival(budget, log, "wide")
        await_waiters(budget, 1)
        lease.give_way()
        assert log == ["wide"]
        budget.check_integrity()
    rival.join(PATIENCE_S)
    budget.check_integrity()
