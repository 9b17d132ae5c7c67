"""Which slots are open, how long they are and where they lie: the table behind a session.

A caller knows a slot by a handle, which is never used twice. The arena knows it by its physical
index. The lowest free index is taken first, so that the slots of a step lie close together; when
many indices below the highest used one are free, `next_move` says which slot should move down.

I1  No two open slots share a physical index, and every index is either taken or free.
I2  A length never exceeds `max_tokens`.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from leptond.errors import InvalidRequest, InvariantViolation, MemoryBudgetExceeded

__all__ = ["MAX_HOLES", "Slot", "SlotTable"]

MAX_HOLES = 16
"""Free indices below the highest used one that are left alone.

A hole costs a decode step nothing. Beside a prompt chunk of 64 tokens, 14 holes cost it 2 % and 62
cost 12 %; moving a slot of 500 tokens costs 16 ms once (docs/adr/0004-engine.md).
"""


@dataclass(slots=True)
class Slot:
    """One open slot: its place in the arena and the tokens that it holds."""

    index: int
    length: int = 0


class SlotTable:
    """The slots of one session; owned by its thread.

    Args:
        num_slots: physical slots.
        max_tokens: most tokens of a slot.
    """

    def __init__(self, num_slots: int, max_tokens: int) -> None:
        self._num_slots = num_slots
        self._max_tokens = max_tokens
        self._slots: dict[int, Slot] = {}
        self._free = list(range(num_slots))  # a heap
        self._next_handle = 0

    @property
    def num_open(self) -> int:
        """Open slots."""
        return len(self._slots)

    @property
    def max_tokens(self) -> int:
        """Most tokens of a slot."""
        return self._max_tokens

    def open(self, length: int = 0) -> int:
        """Take the lowest free index and return a new handle.

        Raises:
            MemoryBudgetExceeded: all slots are open.
        """
        if not self._free:
            raise MemoryBudgetExceeded(f"all {self._num_slots} slots are in use")
        handle = self._next_handle
        self._next_handle += 1
        self._slots[handle] = Slot(heapq.heappop(self._free), length)
        return handle

    def get(self, handle: int) -> Slot:
        """The slot of `handle`.

        Raises:
            InvalidRequest: it is not open.
        """
        slot = self._slots.get(handle)
        if slot is None:
            raise InvalidRequest(f"slot {handle} is not open", field="slot")
        return slot

    def checked(self, handle: int, length: int) -> Slot:
        """The slot of `handle`, which must hold at least `length` tokens.

        Raises:
            InvalidRequest: it is not open, or holds fewer, or `length` is negative.
        """
        slot = self.get(handle)
        if not 0 <= length <= slot.length:
            raise InvalidRequest(
                f"{length} of the {slot.length} tokens of slot {handle}", field="length"
            )
        return slot

    def close(self, handle: int) -> int:
        """Free the slot and return its physical index."""
        index = self.get(handle).index
        del self._slots[handle]
        heapq.heappush(self._free, index)
        return index

    def next_move(self) -> Slot | None:
        """The highest slot, when there are more than `MAX_HOLES` holes below it."""
        if len(self._free) <= MAX_HOLES or not self._slots:
            return None
        highest = max(self._slots.values(), key=lambda slot: slot.index)
        num_holes = highest.index + 1 - len(self._slots)
        return highest if num_holes > MAX_HOLES else None

    def move_down(self, slot: Slot) -> None:
        """Give `slot`, the highest, the lowest free index; its former one becomes free."""
        slot.index = heapq.heapreplace(self._free, slot.index)

    def clear(self) -> None:
        """Forget every slot."""
        self._slots.clear()
        self._free = list(range(self._num_slots))

    def check_integrity(self) -> None:
        """Raise `InvariantViolation` when I1 or I2 is broken."""
        taken = [slot.index for slot in self._slots.values()]
        if sorted([*taken, *self._free]) != list(range(self._num_slots)):
            raise InvariantViolation(f"slots {sorted(taken)} are taken, {self._free} are free")
        if any(not 0 <= slot.length <= self._max_tokens for slot in self._slots.values()):
            raise InvariantViolation("a slot is longer than it can be")
