"""Bad rows: refused before anything ran, at no cost to the rows beside them."""
# ruff: noqa: D102, S101 - a test suite: the names are sentences, asserts are what it is for

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from leptond.backend.conformance.comparing import assert_close
from leptond.backend.conformance.step_suite import StepSuite, filled, next_logits, single_run
from leptond.backend.rows import RowPick, StepRow
from leptond.backend.spi import Model, StepSession
from leptond.errors import InvalidRequest

__all__ = ["StepRequests"]

_NOT_OPEN = 10_000

# What may be wrong with a row of `slot`, in which one more token still fits.
_BAD_ROWS: dict[str, Callable[[int, int], StepRow]] = {
    "a slot that is not open": lambda _slot, _vocab: StepRow(_NOT_OPEN, [0]),
    "no token": lambda slot, _vocab: StepRow(slot, []),
    "a negative token": lambda slot, _vocab: StepRow(slot, [-1]),
    "a token beyond the vocabulary": lambda slot, vocab: StepRow(slot, [vocab]),
    "more tokens than fit": lambda slot, _vocab: StepRow(slot, [0, 0]),
    "more logits than tokens": lambda slot, _vocab: StepRow(slot, [0], num_logits=2),
    "a negative number of logits": lambda slot, _vocab: StepRow(slot, [0], num_logits=-1),
    "a temperature of zero": lambda slot, _vocab: StepRow(slot, [0], pick=RowPick(0.0)),
    "a temperature that is no number": lambda slot, _vocab: StepRow(
        slot, [0], pick=RowPick(math.nan)
    ),
    "a bias of another length": lambda slot, vocab: StepRow(
        slot, [0], pick=RowPick(bias=np.zeros(vocab - 1, np.float32))
    ),
    "penalties of another length": lambda slot, vocab: StepRow(
        slot, [0], pick=RowPick(repetition=np.ones(vocab + 1, np.float32))
    ),
}


class StepRequests(StepSuite):
    """What a step session refuses."""

    @pytest.mark.parametrize("is_last", [True, False], ids=["last", "first"])
    @pytest.mark.parametrize("what", _BAD_ROWS)
    def test_a_bad_row_is_refused_before_anything_ran(
        self, model: Model, session: StepSession, tolerance: float, what: str, *, is_last: bool
    ) -> None:
        text, long = self.texts(model, [5, self.max_tokens])
        expected, last = single_run(session, text), single_run(session, long)[-1]
        good, bad = filled(session, text[:-1]), filled(session, long[:-1])
        bad_row = _BAD_ROWS[what](bad, model.capabilities.vocab_size)
        rows = [StepRow(good, text[-1:]), bad_row]
        with pytest.raises(InvalidRequest):
            session.step(rows if is_last else rows[::-1])
        assert session.length(good) == len(text) - 1
        assert session.length(bad) == self.max_tokens - 1
        logits = next_logits(session, good, text[-1])
        assert_close(logits, expected[-1], tolerance, f"answer beside {what}")
        logits = next_logits(session, bad, long[-1])
        assert_close(logits, last, tolerance, f"answer of the slot after {what}")

    def test_two_rows_of_one_slot_are_refused(self, model: Model, session: StepSession) -> None:
        (text,) = self.texts(model, [4])
        slot = filled(session, text[:2])
        with pytest.raises(InvalidRequest):
            session.step([StepRow(slot, text[2:3]), StepRow(slot, text[3:])])
        assert session.length(slot) == 2  # noqa: PLR2004 - see above

    def test_a_slot_takes_as_many_tokens_as_it_was_opened_for_and_no_more(
        self, model: Model, session: StepSession
    ) -> None:
        (text,) = self.texts(model, [self.max_tokens])
        slot = filled(session, text)
        assert session.length(slot) == self.max_tokens
        with pytest.raises(InvalidRequest):
            session.step([StepRow(slot, text[:1])])
        session.truncate(slot, self.max_tokens - 1)
        session.step([StepRow(slot, text[-1:])])
        with pytest.raises(InvalidRequest):
            session.step([StepRow(session.open(), [*text, text[0]])])
