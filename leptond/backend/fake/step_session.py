"""A decode loop over slots that keeps every token it was given, as a real engine keeps its KV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from leptond.backend.checking import check_rows
from leptond.backend.declarations import SessionOptions
from leptond.backend.fake.language import VOCAB_SIZE, FakeLanguage, TokenHistory
from leptond.backend.fake.runtime import FakeRuntime
from leptond.backend.picking import pick_candidates
from leptond.backend.rows import RowPick, StepResult, StepRow
from leptond.errors import InvalidRequest, MemoryBudgetExceeded

__all__ = ["TOKEN_BYTES", "FakeStepSession"]

TOKEN_BYTES = 1 << 10
"""What a token in a slot claims to take."""


class FakeStepSession:
    """The fake engine's `StepSession`.

    The logits of a step live in one buffer that the next step overwrites, as the SPI allows: who
    keeps a view of them too long is found out.
    """

    def __init__(self, language: FakeLanguage, runtime: FakeRuntime, options: SessionOptions):
        self._language = language
        self._runtime = runtime
        self._options = options
        self._slots: dict[int, TokenHistory] = {}
        self._free = list(range(options.num_slots - 1, -1, -1))  # the lowest is taken first
        self._logits = np.empty((options.num_slots, VOCAB_SIZE), np.float32)

    def open(self) -> int:
        """Take an empty slot."""
        return self._take(TokenHistory())

    def fork(self, source: int, length: int) -> int:
        """Take a slot that holds the first `length` tokens of `source`."""
        history = self._history(source)
        _check_length(source, history, length)
        return self._take(history.prefix(length))

    def truncate(self, slot: int, length: int) -> None:
        """Forget all but the first `length` tokens."""
        history = self._history(slot)
        _check_length(slot, history, length)
        history.truncate(length)

    def close(self, slot: int) -> None:
        """Give a slot back."""
        self._history(slot)
        del self._slots[slot]
        self._free.append(slot)

    def length(self, slot: int) -> int:
        """Tokens that the slot holds."""
        return len(self._history(slot))

    def step(self, rows: Sequence[StepRow]) -> StepResult:
        """Append each row's tokens to its slot and answer the wanted positions."""
        self._runtime.require_alive()
        self._check(rows)
        self._runtime.begin(row.token_ids for row in rows)
        self._runtime.spend(len(rows), sum(len(row.token_ids) for row in rows))
        for row in rows:
            self._slots[row.slot].extend(row.token_ids)
        wanted = list(self._wanted(rows))
        logits = self._buffer(len(wanted))
        for line, (history, length, _) in zip(logits, wanted, strict=True):
            line[:] = self._language.logits(history, length)
        return pick_candidates(logits, [pick for _, _, pick in wanted])

    def resident_bytes(self) -> int:
        """Memory that the slots claim to hold."""
        self._runtime.require_owner()
        return TOKEN_BYTES * sum(map(len, self._slots.values()))

    def shutdown(self) -> None:
        """Forget everything; idempotent."""
        self._runtime.shut_down()
        self._slots.clear()

    def _check(self, rows: Sequence[StepRow]) -> None:
        check_rows(rows, self.length, vocab_size=VOCAB_SIZE, max_tokens=self._options.max_tokens)

    def _take(self, history: TokenHistory) -> int:
        self._runtime.require_alive()
        if not self._free:
            raise MemoryBudgetExceeded(f"all {self._options.num_slots} slots are in use")
        slot = self._free.pop()
        self._slots[slot] = history
        return slot

    def _history(self, slot: int) -> TokenHistory:
        self._runtime.require_alive()
        try:
            return self._slots[slot]
        except KeyError:
            raise InvalidRequest(f"slot {slot} is not open", field="slot") from None

    def _wanted(
        self, rows: Sequence[StepRow]
    ) -> Iterator[tuple[TokenHistory, int, RowPick | None]]:
        """History, how much of it, and pick of each line of the result."""
        for row in rows:
            history = self._slots[row.slot]
            for length in range(len(history) - row.num_logits + 1, len(history) + 1):
                yield history, length, row.pick

    def _buffer(self, num_lines: int) -> npt.NDArray[np.float32]:
        if num_lines > len(self._logits):
            self._logits = np.empty((num_lines, VOCAB_SIZE), np.float32)
        return self._logits[:num_lines]


def _check_length(slot: int, history: TokenHistory, length: int) -> None:
    if not 0 <= length <= len(history):
        raise InvalidRequest(
            f"{length} of the {len(history)} tokens of slot {slot}", field="length"
        )
