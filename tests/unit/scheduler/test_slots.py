from __future__ import annotations

from collections.abc import Callable

import pytest

from leptond.errors import InvariantViolation
from leptond.scheduler.slots import SlotTable
from tests.unit.scheduler.rig import Rig


def running_rig() -> Rig:
    rig = Rig()
    for _ in range(2):
        rig.submit(rig.request(4, max_tokens=50))
    rig.advance()
    return rig


def _drop_a_slot(table: SlotTable) -> None:
    table.running[0].slot = None


def _double_a_slot(table: SlotTable) -> None:
    table.running[0].slot = table.running[1].slot


def _miscount(table: SlotTable) -> None:
    table.kv_tokens += 1


def _lose_tokens(table: SlotTable) -> None:
    table.advance(table.running[0], 1)


def _overfill(table: SlotTable) -> None:
    table._max_slots = 1


@pytest.mark.parametrize(
    "damage", [_drop_a_slot, _double_a_slot, _miscount, _lose_tokens, _overfill]
)
def test_damage_is_noticed(damage: Callable[[SlotTable], None]):
    table = running_rig().worker._slots
    table.check_integrity()
    damage(table)
    with pytest.raises(InvariantViolation):
        table.check_integrity()


def test_slots_can_be_abandoned_without_a_word_to_the_session():
    rig = running_rig()
    table = rig.worker._slots
    abandoned = table.abandon()
    assert [sequence.slot for sequence in abandoned] == [None, None]
    assert len(table) == table.kv_tokens == 0
    assert rig.session.num_open == 2
