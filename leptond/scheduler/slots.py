"""Which sequence holds which slot of the session, and how many tokens all of them hold.

I1  A slot is held by one sequence; what the session says it holds is `num_computed`.
I2  `kv_tokens` is the sum over all held slots.

Thread: the worker.
"""

from __future__ import annotations

from leptond.backend import StepSession
from leptond.errors import InvariantViolation
from leptond.scheduler.sequence import Sequence

__all__ = ["SlotTable"]


class SlotTable:
    """The slots of one session, in the order in which they were taken.

    Args:
        max_slots: slots that may be held at once.

    Attributes:
        running: the sequences that hold a slot; read it, never change it.
        kv_tokens: tokens in all slots.
    """

    def __init__(self, session: StepSession, max_slots: int) -> None:
        self._session = session
        self._max_slots = max_slots
        self.running: list[Sequence] = []
        self.kv_tokens = 0

    def __len__(self) -> int:
        return len(self.running)

    @property
    def num_free(self) -> int:
        """Slots that may still be taken."""
        return self._max_slots - len(self.running)

    def open(self, sequence: Sequence) -> None:
        """Give the sequence an empty slot.

        Raises:
            MemoryBudgetExceeded: the session has none to give; nothing changed.
        """
        if sequence.slot is not None:
            raise InvariantViolation(f"request {sequence.request.id} takes a second slot")
        sequence.slot = self._session.open()
        sequence.num_computed = 0
        self.running.append(sequence)

    def advance(self, sequence: Sequence, num_tokens: int) -> None:
        """Note that a step has computed `num_tokens` more of the sequence."""
        sequence.num_computed += num_tokens
        self.kv_tokens += num_tokens

    def close(self, sequence: Sequence) -> None:
        """Give the sequence's slot and its memory back."""
        if sequence.slot is None:
            raise InvariantViolation(f"request {sequence.request.id} has no slot to close")
        self.running.remove(sequence)
        slot, sequence.slot = sequence.slot, None
        self.kv_tokens -= sequence.num_computed
        sequence.num_computed = 0
        self._session.close(slot)

    def abandon(self) -> list[Sequence]:
        """Take the slots from all sequences without a word to the session, which is to end."""
        abandoned, self.running = self.running, []
        self.kv_tokens = 0
        for sequence in abandoned:
            sequence.slot = None
            sequence.num_computed = 0
        return abandoned

    def check_integrity(self) -> None:
        """Raise `InvariantViolation` when table, sequences and session disagree."""
        if len(self.running) > self._max_slots:
            raise InvariantViolation(f"{len(self.running)} of {self._max_slots} slots are held")
        slots = [sequence.slot for sequence in self.running]
        if None in slots or len(set(slots)) != len(slots):
            raise InvariantViolation(f"slots {slots} are held")
        if sum(sequence.num_computed for sequence in self.running) != self.kv_tokens:
            raise InvariantViolation(f"{self.kv_tokens} tokens counted in slots")
        for sequence in self.running:
            held = self._session.length(sequence.slot) if sequence.slot is not None else 0
            if held != sequence.num_computed:
                raise InvariantViolation(
                    f"slot {sequence.slot} holds {held} tokens, {sequence.num_computed} counted"
                )
