from __future__ import annotations

import pytest

from leptond.errors import InvariantViolation, MemoryBudgetExceeded
from leptond.memory import MemoryBudget


def test_what_is_reserved_is_no_longer_available():
    budget = MemoryBudget(100)
    weights = budget.reserve(60, "llama")
    assert (weights.num_bytes, weights.owner, weights.pool) == (60, "llama", "weights")
    assert (budget.limit_bytes, budget.reserved_bytes, budget.available_bytes) == (100, 60, 40)
    assert budget.can_reserve(40)
    assert not budget.can_reserve(41)


def test_I1_bytes_never_exceed_the_budget():
    budget = MemoryBudget(100)
    budget.reserve(60, "llama")
    with pytest.raises(MemoryBudgetExceeded, match="mini needs 41 more bytes") as caught:
        budget.reserve(41, "mini", "kv")
    assert caught.value.details == {"needed_bytes": "41", "available_bytes": "40"}
    assert caught.value.retryable
    assert budget.reserved_bytes == 60
    budget.check_integrity()
    budget.reserve(40, "mini")
    assert budget.available_bytes == 0


def test_released_bytes_can_be_reserved_again():
    budget = MemoryBudget(100)
    first = budget.reserve(100, "llama")
    first.release()
    assert first.is_released
    assert first.num_bytes == 0
    assert budget.reserve(100, "mini").num_bytes == 100


def test_I2_a_reservation_is_released_exactly_once():
    budget = MemoryBudget(100)
    twice = budget.reserve(30, "llama", "kv")
    budget.reserve(20, "mini")
    twice.release()
    with pytest.raises(InvariantViolation, match="llama/kv: released> was used after its release"):
        twice.release()
    with pytest.raises(InvariantViolation, match="after its release"):
        twice.resize(1)
    assert budget.reserved_bytes == 20


def test_a_reservation_grows_and_shrinks_to_what_was_really_needed():
    budget = MemoryBudget(100)
    reservation = budget.reserve(50, "llama")
    reservation.resize(100)
    assert budget.available_bytes == 0
    reservation.resize(10)
    assert budget.available_bytes == 90


def test_a_reservation_that_cannot_grow_keeps_what_it_holds():
    budget = MemoryBudget(100)
    reservation = budget.reserve(50, "llama")
    budget.reserve(30, "mini")
    with pytest.raises(MemoryBudgetExceeded):
        reservation.resize(71)
    assert reservation.num_bytes == 50
    budget.check_integrity()


def test_the_report_tells_owners_and_pools_apart():
    budget = MemoryBudget(1000)
    budget.reserve(100, "llama", "weights")
    budget.reserve(20, "llama", "kv")
    budget.reserve(30, "llama", "kv")
    budget.reserve(400, "mini", "weights")
    budget.reserve(300, "gone", "kv").release()
    report = budget.report()
    assert report.by_owner == {"llama": {"weights": 100, "kv": 50}, "mini": {"weights": 400}}
    assert report.by_pool == {"weights": 500, "kv": 50}
    assert (report.limit_bytes, report.reserved_bytes, report.available_bytes) == (1000, 550, 450)
    assert report.peak_bytes == 850


def test_nothing_can_be_reserved_of_a_budget_of_nothing_but_nothing():
    budget = MemoryBudget(0)
    assert budget.reserve(0, "tiny").num_bytes == 0
    with pytest.raises(MemoryBudgetExceeded):
        budget.reserve(1, "tiny")


@pytest.mark.parametrize(
    "use",
    [
        lambda: MemoryBudget(-1),
        lambda: MemoryBudget(10).reserve(-1, "llama"),
        lambda: MemoryBudget(10).reserve(1, "llama").resize(-1),
    ],
)
def test_negative_bytes_are_a_bug(use):
    with pytest.raises(InvariantViolation, match="-1 bytes"):
        use()


def test_a_reservation_names_its_holder():
    assert repr(MemoryBudget(9).reserve(5, "llama")) == "<Reservation llama/weights: 5 bytes>"


def break_the_sum(budget):
    budget._reserved_bytes += 1


def break_the_limit(budget):
    budget._limit_bytes = 0


def break_a_release(budget):
    next(iter(budget._live))._is_released = True


@pytest.mark.parametrize("damage", [break_the_sum, break_the_limit, break_a_release])
def test_a_damaged_budget_is_found_out(damage):
    budget = MemoryBudget(10)
    budget.reserve(5, "llama")
    budget.check_integrity()
    damage(budget)
    with pytest.raises(InvariantViolation):
        budget.check_integrity()
