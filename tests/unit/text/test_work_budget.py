"""A budget is charged before the work, by size."""

from __future__ import annotations

import pytest

from leptond.errors import InvalidRequest
from leptond.text.work_budget import TemplateNamespace, WorkBudget


def spent(charge) -> int:
    """Units that `charge` takes, found by giving it ever less."""
    low, high = 0, 100_000
    while low < high:
        middle = (low + high) // 2
        try:
            charge(WorkBudget(middle))
            high = middle
        except InvalidRequest:
            low = middle + 1
    return low


@pytest.mark.parametrize(
    ("charge", "units"),
    [
        (lambda budget: budget.charge(), 1),
        (lambda budget: budget.charge(-5), 1),
        (lambda budget: budget.charge_text(1280), 11),
        (lambda budget: budget.charge_items(160), 11),
        (lambda budget: budget.weigh("x" * 1280), 11),
        (lambda budget: budget.weigh(None), 1),
        (lambda budget: budget.weigh([1, 2, (3, 4)]), 1 + 3 + 3 + 2 + 2),
        (lambda budget: budget.weigh({"a": 1}), 1 + 2 + 2),
        (lambda budget: budget.weigh({"a": 1}.items()), 1 + 1 + 3 + 2),
        (lambda budget: budget.weigh(TemplateNamespace(a=[])), 1 + 1 + 2),
        (lambda budget: list(budget.counted(iter("abc"))), 3),
    ],
)
def test_work_is_charged_by_size(charge, units):
    assert spent(charge) == units


def test_a_shared_value_is_charged_wherever_it_is():
    shared: list[object] = []
    for _ in range(10):
        shared = [shared, shared]
    assert spent(lambda budget: budget.weigh(shared)) > 2**11


def test_a_huge_number_is_refused():
    with pytest.raises(InvalidRequest, match="more than 4096 bits"):
        WorkBudget(1000).weigh([1 << 4096])
    WorkBudget(1000).weigh([1 << 4000])


def test_nesting_is_left_again():
    budget = WorkBudget(1000)
    for _ in range(1000):
        with budget.nested():
            pass


def test_a_deep_value_is_refused():
    deep: list[object] = []
    for _ in range(70):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="nests values too deeply"):
        WorkBudget(1000).weigh(deep)


def test_iterators_are_settled_and_lists_are_left():
    budget = WorkBudget(10)
    items = [1]
    assert budget.settled(items) is items
    assert budget.settled(iter("ab")) == ["a", "b"]
