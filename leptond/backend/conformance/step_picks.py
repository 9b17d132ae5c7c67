"""Picks: repetition, bias and temperature, the candidates and the normalisers."""
# ruff: noqa: D102, S101 - a test suite: the names are sentences, asserts are what it is for

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from leptond.backend.conformance.comparing import assert_answers_itself, assert_close
from leptond.backend.conformance.step_suite import StepSuite, filled, single_run
from leptond.backend.rows import RowPick, StepRow
from leptond.backend.spi import Model, StepSession

__all__ = ["StepPicks"]

_PICKS = {
    "raw": RowPick(),
    "cold": RowPick(temperature=0.3),
    "hot": RowPick(temperature=2.5),
}


def _values(model: Model, salt: int, low: float, high: float) -> npt.NDArray[np.float32]:
    """Random float32 `[vocab_size]`, a third of it left at `low`."""
    dice = np.random.default_rng(salt)
    values = dice.uniform(low, high, model.capabilities.vocab_size).astype(np.float32)
    values[dice.random(values.size) < 1 / 3] = low
    return values


def _pick(model: Model, what: str) -> RowPick:
    if what in _PICKS:
        return _PICKS[what]
    repetition = _values(model, 1, 1.0, 1.8)
    bias = _values(model, 2, -4.0, 4.0)
    return {
        "repetition": RowPick(repetition=repetition),
        "bias": RowPick(bias=bias),
        "everything": RowPick(temperature=0.7, repetition=repetition, bias=bias),
    }[what]


class StepPicks(StepSuite):
    """How the logits of a step session are processed."""

    @pytest.mark.parametrize("what", [*_PICKS, "repetition", "bias", "everything"])
    def test_candidates_and_normalizers_follow_from_the_logits_and_the_pick(
        self, model: Model, session: StepSession, what: str
    ) -> None:
        pick = _pick(model, what)
        (text,) = self.texts(model, [6])
        result = session.step([StepRow(session.open(), text, num_logits=3, pick=pick)])
        assert len(result.logits) == 3  # noqa: PLR2004 - see above
        for line in range(3):
            assert_answers_itself(result, line, pick, self.arithmetic_tolerance)

    def test_without_a_pick_the_candidates_are_those_of_the_raw_logits(
        self, model: Model, session: StepSession
    ) -> None:
        (text,) = self.texts(model, [6])
        result = session.step([StepRow(session.open(), text, num_logits=2)])
        for line in range(2):
            assert_answers_itself(result, line, None, self.arithmetic_tolerance)

    def test_a_pick_leaves_the_raw_logits_alone(
        self, model: Model, session: StepSession, tolerance: float
    ) -> None:
        (text,) = self.texts(model, [6])
        expected = single_run(session, text)
        row = StepRow(session.open(), text, num_logits=6, pick=_pick(model, "everything"))
        assert_close(session.step([row]).logits, expected, tolerance, "raw logits under a pick")

    def test_rows_of_a_step_keep_their_own_picks(self, model: Model, session: StepSession) -> None:
        texts = self.texts(model, [5, 5, 5])
        picks = [_pick(model, "everything"), None, _pick(model, "cold")]
        for order in ((0, 1, 2), (1, 2, 0)):
            slots = [filled(session, texts[index][:-2]) for index in order]
            rows = [
                StepRow(slot, texts[index][-2:], num_logits=2, pick=picks[index])
                for slot, index in zip(slots, order, strict=True)
            ]
            result = session.step(rows)
            for line in range(2 * len(rows)):
                pick = picks[order[line // 2]]
                assert_answers_itself(result, line, pick, self.arithmetic_tolerance)
            for slot in slots:
                session.close(slot)

    def test_a_pick_lasts_for_one_step(self, model: Model, session: StepSession) -> None:
        (text,) = self.texts(model, [6])
        slot = session.open()
        session.step([StepRow(slot, text[:3], pick=_pick(model, "everything"))])
        result = session.step([StepRow(slot, text[3:])])
        assert_answers_itself(result, 0, None, self.arithmetic_tolerance)

    def test_masked_tokens_come_after_all_others(self, model: Model, session: StepSession) -> None:
        allowed = sorted({0, model.capabilities.vocab_size // 2, model.capabilities.vocab_size - 1})
        bias = np.full(model.capabilities.vocab_size, -np.inf, np.float32)
        bias[allowed] = 0.0
        pick = RowPick(bias=bias)
        (text,) = self.texts(model, [4])
        result = session.step([StepRow(session.open(), text, pick=pick)])
        assert_answers_itself(result, 0, pick, self.arithmetic_tolerance)
        num_shown = min(len(allowed), result.candidate_ids.shape[1])
        assert set(result.candidate_ids[0][:num_shown].tolist()) <= set(allowed)
