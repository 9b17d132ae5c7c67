from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leptond.errors import InvalidRequest, MemoryBudgetExceeded
from leptond_onnxruntime.slots import MAX_HOLES, SlotTable


def test_the_lowest_free_index_is_taken_first():
    table = SlotTable(4, 10)
    first, second, _ = table.open(), table.open(), table.open()
    assert [table.close(second), table.close(first)] == [1, 0]
    assert table.get(table.open()).index == 0
    assert table.get(table.open()).index == 1
    assert table.get(table.open()).index == 3


def test_a_handle_is_never_used_twice():
    table = SlotTable(1, 10)
    old = table.open()
    table.close(old)
    assert table.open() != old
    with pytest.raises(InvalidRequest, match=f"slot {old} is not open"):
        table.get(old)


def test_more_slots_than_there_are_is_refused_with_their_number():
    table = SlotTable(2, 10)
    table.open(), table.open()
    with pytest.raises(MemoryBudgetExceeded, match="all 2 slots"):
        table.open()


def test_a_length_beyond_what_the_slot_holds_is_refused():
    table = SlotTable(2, 10)
    handle = table.open(length=3)
    assert table.checked(handle, 3).length == 3
    for length in (-1, 4):
        with pytest.raises(InvalidRequest, match="of the 3 tokens"):
            table.checked(handle, length)


def holes_below_the_last(num_holes):
    table = SlotTable(num_holes + 2, 10)
    handles = [table.open() for _ in range(num_holes + 2)]
    for handle in handles[1:-1]:
        table.close(handle)
    return table, handles[-1]


def test_a_few_holes_are_left_alone():
    table, _ = holes_below_the_last(MAX_HOLES)
    assert table.next_move() is None


def test_with_many_holes_the_highest_slot_moves_to_the_lowest_of_them():
    table, last = holes_below_the_last(MAX_HOLES + 1)
    slot = table.next_move()
    assert slot is table.get(last)
    table.move_down(slot)
    assert table.get(last).index == 1
    assert table.next_move() is None
    table.check_integrity()


def test_a_full_or_an_empty_table_has_nothing_to_move():
    table = SlotTable(2, 10)
    assert table.next_move() is None
    table.open(), table.open()
    assert table.next_move() is None


class SlotMachine(RuleBasedStateMachine):
    """Opens, closes and moves at random; a second book is kept here."""

    NUM_SLOTS = 3 * MAX_HOLES

    def __init__(self):
        super().__init__()
        self.table = SlotTable(self.NUM_SLOTS, 100)
        self.lengths = {}

    @precondition(lambda self: len(self.lengths) < self.NUM_SLOTS)
    @rule(length=st.integers(0, 100), times=st.integers(1, 12))
    def open(self, length, times):
        for _ in range(min(times, self.NUM_SLOTS - len(self.lengths))):
            taken = {self.table.get(handle).index for handle in self.lengths}
            handle = self.table.open(length)
            assert self.table.get(handle).index == min(set(range(self.NUM_SLOTS)) - taken)
            self.lengths[handle] = length

    @precondition(lambda self: self.lengths)
    @rule(data=st.data())
    def close(self, data):
        handle = data.draw(st.sampled_from(sorted(self.lengths)))
        self.table.close(handle)
        del self.lengths[handle]

    @rule()
    def compact(self):
        while slot := self.table.next_move():
            former = slot.index
            self.table.move_down(slot)
            assert slot.index < former

    @invariant()
    def integrity(self):
        self.table.check_integrity()
        assert self.table.num_open == len(self.lengths)
        for handle, length in self.lengths.items():
            assert self.table.get(handle).length == length


TestSlotMachine = SlotMachine.TestCase
