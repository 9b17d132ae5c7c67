"""The decode loop over slots: validates a step, cuts it into runs, answers it.

    step(rows) → check all rows → compact → plan_runs → body, run by run → head → lengths grow

I1  Nothing runs, and nothing changes, before every row of a step was checked.
I2  Lengths grow only when the whole step was answered: what a failed run wrote lies behind the
    length of its slots, where the next step writes again.

Every method is called on the session's own thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.backend import RowPick, StepResult, StepRow
from leptond.errors import BackendCrashed, InvalidRequest, InvariantViolation, RequestTooLarge
from leptond_onnxruntime.arena import KvArena
from leptond_onnxruntime.body_runner import BodyRunner
from leptond_onnxruntime.graphs import Graph
from leptond_onnxruntime.head_runner import HeadRunner
from leptond_onnxruntime.importer.graph_io import GraphSpec
from leptond_onnxruntime.runs import RunLimits, StepSlice, plan_runs
from leptond_onnxruntime.slots import SlotTable

__all__ = ["OnnxStepSession"]


class OnnxStepSession:
    """A `StepSession` over the two graphs of a decoder.

    Args:
        arena: freed by `shutdown`. Its slots must hold `max_tokens` and the padding of one row
            that rides along: the operator wants room for it behind a full slot.
    """

    def __init__(
        self,
        spec: GraphSpec,
        body: Graph,
        head: Graph,
        arena: KvArena,
        *,
        max_tokens: int,
        limits: RunLimits,
    ) -> None:
        self._spec = spec
        self._arena = arena
        self._limits = limits
        self._slots = SlotTable(arena.layout.num_slots, max_tokens)
        self._body = BodyRunner(body, arena)
        self._head = HeadRunner(head, spec)
        self._hidden = np.empty((0, spec.hidden_size), spec.hidden_dtype)
        self._is_shut_down = False
        self._is_dead = False

    @property
    def is_shut_down(self) -> bool:
        """Whether the session is over."""
        return self._is_shut_down

    def open(self) -> int:
        """Take an empty slot. Raises `MemoryBudgetExceeded` when none is free."""
        self._require_alive()
        return self._slots.open()

    def fork(self, source: int, length: int) -> int:
        """Take a slot with a copy of the first `length` tokens of `source`; no model run."""
        self._require_alive()
        original = self._slots.checked(source, length)
        handle = self._slots.open(length)
        self._arena.copy(original.index, self._slots.get(handle).index, length)
        return handle

    def truncate(self, slot: int, length: int) -> None:
        """Forget all but the first `length` tokens; a number changes, memory stays."""
        self._require_alive()
        self._slots.checked(slot, length).length = length

    def close(self, slot: int) -> None:
        """Give a slot and its memory back."""
        self._require_alive()
        self._arena.give_back(self._slots.close(slot))

    def length(self, slot: int) -> int:
        """Tokens that the slot holds."""
        self._require_alive()
        return self._slots.get(slot).length

    def step(self, rows: Sequence[StepRow]) -> StepResult:
        """Append each row's tokens to its slot and answer the wanted positions.

        Raises:
            InvalidRequest: a row breaks its contract; nothing ran.
            BackendFault: a run failed; every slot is as it was.
            BackendCrashed: the device is lost, and the session with it.
        """
        self._require_alive()
        self._check(rows)
        self._compact()
        slices = self._slices(rows)
        picks = [row.pick for row in rows for _ in range(row.num_logits)]
        hidden = self._hidden_rows(len(picks))
        try:
            for run in plan_runs(slices, self._limits):
                self._body.run(run, hidden)
            result = self._head.run(hidden, picks)
        except BackendCrashed:
            self._is_dead = True
            raise
        for row in rows:
            self._slots.get(row.slot).length += len(row.token_ids)
        return result

    def resident_bytes(self) -> int:
        """Memory that the slots hold now, in bytes."""
        return self._arena.resident_bytes()

    def shutdown(self) -> None:
        """Free everything; idempotent."""
        self._is_shut_down = True
        self._slots.clear()
        self._arena.close()

    def _require_alive(self) -> None:
        if self._is_shut_down:
            raise InvariantViolation("a session was used after its shutdown")
        if self._is_dead:
            raise BackendCrashed("the session's device was lost in an earlier step")

    def _compact(self) -> None:
        """Move one slot down when holes are many: a bounded price per step."""
        slot = self._slots.next_move()
        if slot is None:
            return
        former = slot.index
        self._slots.move_down(slot)
        self._arena.copy(former, slot.index, slot.length)
        self._arena.give_back(former)

    def _hidden_rows(self, num_lines: int) -> npt.NDArray[Any]:
        """Rows between body and head; the same memory as in the last step if it had as many."""
        if len(self._hidden) != num_lines:
            self._hidden = np.empty((num_lines, self._spec.hidden_size), self._hidden.dtype)
        return self._hidden

    def _slices(self, rows: Sequence[StepRow]) -> list[StepSlice]:
        slices = []
        line = 0
        for row in rows:
            slot = self._slots.get(row.slot)
            slices.append(StepSlice(slot.index, slot.length, row.token_ids, row.num_logits, line))
            line += row.num_logits
        return slices

    def _check(self, rows: Sequence[StepRow]) -> None:
        """Raise `InvalidRequest` when any row breaks its contract."""
        seen: set[int] = set()
        for row in rows:
            num_held = self._slots.get(row.slot).length
            if row.slot in seen:
                raise InvalidRequest(f"slot {row.slot} has two rows in one step", field="slot")
            seen.add(row.slot)
            self._check_tokens(row, num_held)
            if row.pick is not None:
                self._check_pick(row.slot, row.pick)

    def _check_tokens(self, row: StepRow, num_held: int) -> None:
        num_new = len(row.token_ids)
        if num_new == 0:
            raise InvalidRequest(f"slot {row.slot}: a row needs a token", field="token_ids")
        if not 0 <= row.num_logits <= num_new:
            raise InvalidRequest(
                f"slot {row.slot}: {row.num_logits} logits of {num_new} new tokens",
                field="num_logits",
            )
        if num_held + num_new > self._slots.max_tokens:
            raise RequestTooLarge(
                f"slot {row.slot} would hold {num_held + num_new} tokens; "
                f"at most {self._slots.max_tokens} fit",
                field="token_ids",
            )
        lowest, highest = min(row.token_ids), max(row.token_ids)
        if lowest < 0 or highest >= self._spec.vocab_size:
            wrong = lowest if lowest < 0 else highest
            raise InvalidRequest(
                f"slot {row.slot}: token {wrong} is not in the vocabulary "
                f"of {self._spec.vocab_size}",
                field="token_ids",
            )

    def _check_pick(self, slot: int, pick: RowPick) -> None:
        if not 0 < pick.temperature < math.inf:
            raise InvalidRequest(
                f"slot {slot}: temperature is {pick.temperature}, not a number above 0",
                field="pick.temperature",
            )
        expected = (self._spec.vocab_size,)
        for name, values in (("repetition", pick.repetition), ("bias", pick.bias)):
            if values is not None and (values.shape != expected or values.dtype != np.float32):
                raise InvalidRequest(
                    f"slot {slot}: {name} is {values.dtype} {list(values.shape)}, "
                    f"not float32 {list(expected)}",
                    field=f"pick.{name}",
                )
