from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leptond.backend import SessionOptions, StepRow
from leptond.backend.fake import FakeModel, FakeOptions, FakeStepSession
from leptond.errors import InvariantViolation, MemoryBudgetExceeded
from leptond.scheduler.sequence import Sequence
from leptond.scheduler.slots import SlotTable
from leptond.types import GenerationRequest, StopConditions
from tests.unit.scheduler.rig import GREEDY, RecordingSink, SimulatedClock

SLOTS = 3


def sequence_of(num_tokens: int) -> Sequence:
    request = GenerationRequest("r", tuple(range(num_tokens)), GREEDY, StopConditions(9))
    sink = RecordingSink(SimulatedClock())
    return Sequence(request, sink, arrival=0.0, due=0.0, priority=0, max_tokens=9)


class SlotMachine(RuleBasedStateMachine):
    """Sequences take slots, grow and give them back; the session must always agree."""

    def __init__(self) -> None:
        super().__init__()
        session = FakeModel(FakeOptions(slots=SLOTS, context=64)).open_session(
            SessionOptions(SLOTS, 64)
        )
        assert isinstance(session, FakeStepSession)
        self.session = session
        self.table = SlotTable(session, SLOTS)
        self.held: list[Sequence] = []

    @precondition(lambda self: len(self.held) < SLOTS)
    @rule(num_tokens=st.integers(1, 60))
    def open(self, num_tokens: int) -> None:
        sequence = sequence_of(num_tokens)
        self.table.open(sequence)
        self.held.append(sequence)
        with pytest.raises(InvariantViolation):
            self.table.open(sequence)

    @precondition(lambda self: len(self.held) == SLOTS)
    @rule()
    def open_too_many(self) -> None:
        with pytest.raises(MemoryBudgetExceeded):
            self.table.open(sequence_of(1))

    @precondition(lambda self: any(sequence.num_pending for sequence in self.held))
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        rows: list[StepRow] = []
        planned: list[tuple[Sequence, int]] = []
        for sequence in self.held:
            if not sequence.num_pending:
                continue
            num_tokens = data.draw(st.integers(1, sequence.num_pending))
            first = sequence.num_computed
            assert sequence.slot is not None
            rows.append(StepRow(sequence.slot, sequence.token_ids[first : first + num_tokens], 0))
            planned.append((sequence, num_tokens))
        self.session.step(rows)
        for sequence, num_tokens in planned:
            self.table.advance(sequence, num_tokens)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, SLOTS))
    def close(self, which: int) -> None:
        sequence = self.held.pop(which % len(self.held))
        self.table.close(sequence)
        assert sequence.num_computed == 0
        with pytest.raises(InvariantViolation):
            self.table.close(sequence)

    @invariant()
    def table_and_session_agree(self) -> None:
        self.table.check_integrity()
        assert self.table.running == self.held
        assert self.table.num_free == SLOTS - len(self.held)
        assert self.table.kv_tokens == sum(sequence.num_computed for sequence in self.held)


TestSlotMachine = SlotMachine.TestCase
