from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from leptond.errors import MemoryBudgetExceeded
from leptond.memory import MemoryBudget

LIMIT_BYTES = 1000
SIZES = st.integers(0, LIMIT_BYTES + 1)


class BudgetMachine(RuleBasedStateMachine):
    """A budget against a plain list of what should be held."""

    reservations = Bundle("reservations")

    def __init__(self):
        super().__init__()
        self.budget = MemoryBudget(LIMIT_BYTES)
        self.held: dict[int, int] = {}

    def room(self):
        return LIMIT_BYTES - sum(self.held.values())

    @rule(
        target=reservations,
        size=SIZES,
        owner=st.sampled_from(["a", "b"]),
        pool=st.sampled_from(["weights", "kv"]),
    )
    def reserve(self, size, owner, pool):
        fits = self.budget.can_reserve(size)
        assert fits == (size <= self.room())
        if not fits:
            with pytest.raises(MemoryBudgetExceeded):
                self.budget.reserve(size, owner, pool)
            size = 0
        reservation = self.budget.reserve(size, owner, pool)
        self.held[id(reservation)] = size
        return reservation

    @rule(reservation=reservations, size=SIZES)
    def resize(self, reservation, size):
        if size - self.held[id(reservation)] > self.room():
            with pytest.raises(MemoryBudgetExceeded):
                reservation.resize(size)
        else:
            reservation.resize(size)
            self.held[id(reservation)] = size

    @rule(reservation=consumes(reservations))
    def release(self, reservation):
        reservation.release()
        del self.held[id(reservation)]

    @invariant()
    def I1_bytes_never_exceed_the_budget(self):
        self.budget.check_integrity()
        report = self.budget.report()
        assert report.reserved_bytes == sum(self.held.values()) <= LIMIT_BYTES
        assert sum(report.by_pool.values()) == report.reserved_bytes <= report.peak_bytes


TestBudgetMachine = BudgetMachine.TestCase


def test_threads_that_race_for_the_last_bytes_never_exceed_the_budget():
    budget = MemoryBudget(10)
    barrier = threading.Barrier(4)

    def take_and_give(owner):
        barrier.wait()
        num_refused = 0
        for _ in range(500):
            try:
                reservation = budget.reserve(4, owner)
            except MemoryBudgetExceeded:
                num_refused += 1
            else:
                reservation.release()
        return num_refused

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(take_and_give, "abcd"))
    budget.check_integrity()
    report = budget.report()
    assert report.reserved_bytes == 0
    assert report.peak_bytes <= 10
