"""Answers: the same for a row whatever its chunks, its company and its place in the step."""
# ruff: noqa: D102, S101 - a test suite: the names are sentences, asserts are what it is for

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest

from leptond.backend.conformance.comparing import assert_close
from leptond.backend.conformance.step_suite import Logits, StepSuite, copied, filled, single_run
from leptond.backend.rows import StepRow
from leptond.backend.spi import Model, StepSession

__all__ = ["StepAnswers"]

_MAX_CHUNK_TOKENS = 5
_PAUSE_CHANCE = 0.6  # that the next text waits for a step, although there is a slot
_REWIND_CHANCE = 0.1  # that a text is truncated to some place before, and goes on from there


@dataclass
class _Reader:
    """A text on its way through a slot, with the logits of its single run."""

    text: list[int]
    expected: Logits
    slot: int = -1
    position: int = 0

    @property
    def is_done(self) -> bool:
        return self.position == len(self.text)

    def next_row(self, dice: random.Random) -> StepRow:
        """A chunk of random length that wants a random number of logits."""
        chunk = self.text[self.position :][: dice.randint(1, _MAX_CHUNK_TOKENS)]
        self.position += len(chunk)
        return StepRow(self.slot, chunk, num_logits=dice.randint(0, len(chunk)))


class StepAnswers(StepSuite):
    """Answers of a step session against the single run."""

    def test_a_result_has_the_shapes_and_types_of_the_interface(
        self, model: Model, session: StepSession
    ) -> None:
        text, other = self.texts(model, [7, 4])
        rows = [StepRow(session.open(), text, num_logits=3), StepRow(session.open(), other)]
        result = session.step(rows)
        num_candidates = result.candidate_ids.shape[1]
        assert 1 <= num_candidates <= model.capabilities.vocab_size
        assert result.candidate_ids.shape == (4, num_candidates)
        assert result.candidate_ids.dtype == np.int64
        for array, shape in (
            (result.candidate_logits, (4, num_candidates)),
            (result.log_normalizer, (4,)),
            (result.raw_log_normalizer, (4,)),
            (result.logits, (4, model.capabilities.vocab_size)),
        ):
            assert array.shape == shape
            assert array.dtype == np.float32
        assert np.isfinite(result.logits).all()

    def test_a_step_appends_its_tokens(self, model: Model, session: StepSession) -> None:
        (text,) = self.texts(model, [6])
        slot, idle = session.open(), session.open()
        session.step([StepRow(slot, text[:4])])
        session.step([StepRow(slot, text[4:], num_logits=0)])
        assert session.length(slot) == len(text)
        assert session.length(idle) == 0

    @pytest.mark.parametrize("num_chunk_tokens", [1, 2, 7])
    def test_a_text_cut_into_chunks_is_answered_like_the_whole(
        self, model: Model, session: StepSession, tolerance: float, num_chunk_tokens: int
    ) -> None:
        (text,) = self.texts(model, [24])
        expected = single_run(session, text)
        slot = session.open()
        for start in range(0, len(text), num_chunk_tokens):
            chunk = text[start : start + num_chunk_tokens]
            logits = session.step([StepRow(slot, chunk, num_logits=len(chunk))]).logits
            wanted = expected[start : start + len(chunk)]
            assert_close(logits, wanted, tolerance, f"chunk at {start}")

    def test_the_last_positions_are_answered_as_many_as_are_wanted(
        self, model: Model, session: StepSession, tolerance: float
    ) -> None:
        (text,) = self.texts(model, [6])
        expected = single_run(session, text)
        for num_logits in range(len(text) + 1):
            slot = session.open()
            logits = session.step([StepRow(slot, text, num_logits=num_logits)]).logits
            wanted = expected[len(text) - num_logits :]
            assert_close(logits, wanted, tolerance, f"the last {num_logits} positions")
            session.close(slot)

    def test_a_row_without_wanted_positions_takes_no_line(
        self, model: Model, session: StepSession, tolerance: float
    ) -> None:
        texts = self.texts(model, [5, 5, 5])
        expected = single_run(session, texts[1])
        rows = [StepRow(session.open(), text, num_logits=0) for text in texts]
        rows[1] = StepRow(rows[1].slot, texts[1], num_logits=2)
        logits = session.step(rows).logits
        assert_close(logits, expected[-2:], tolerance, "lines of the one row that wants any")

    def test_rows_of_any_lengths_share_a_step(
        self, model: Model, session: StepSession, tolerance: float
    ) -> None:
        lengths = [1 + (9 * index) % 23 for index in range(self.num_slots)]
        texts = self.texts(model, lengths)
        expected = [single_run(session, text) for text in texts]
        rows = [StepRow(session.open(), text, num_logits=len(text)) for text in texts]
        logits = session.step(rows).logits
        assert_close(logits, np.concatenate(expected), tolerance, "lines of all rows")

    def test_the_order_of_rows_is_the_order_of_lines_and_changes_nothing(
        self, model: Model, session: StepSession, tolerance: float
    ) -> None:
        texts = self.texts(model, [4 + index for index in range(self.num_slots)])
        expected = [single_run(session, text)[-1] for text in texts]
        slots = [filled(session, text[:-1]) for text in texts]
        ascending = list(range(self.num_slots))
        for order in (ascending[::-1], [*ascending[1:], 0], ascending[::2] + ascending[1::2]):
            rows = [StepRow(slots[index], texts[index][-1:]) for index in order]
            logits = session.step(rows).logits
            for line, index in enumerate(order):
                assert_close(logits[line], expected[index], tolerance, f"row {line} of {order}")
                session.truncate(slots[index], len(texts[index]) - 1)

    def test_slots_without_a_row_are_left_alone(
        self, model: Model, session: StepSession, tolerance: float
    ) -> None:
        texts = self.texts(model, [9] * self.num_slots)
        expected = [single_run(session, text) for text in texts]
        slots = [filled(session, text[:6]) for text in texts]
        for position in (6, 7, 8):
            # First and last only, then those between: holes in the middle, then at both ends.
            outer = [0, self.num_slots - 1]
            for members in (outer, [i for i in range(self.num_slots) if i not in outer]):
                rows = [StepRow(slots[i], [texts[i][position]]) for i in members]
                logits = session.step(rows).logits
                for line, index in enumerate(members):
                    wanted = expected[index][position]
                    assert_close(logits[line], wanted, tolerance, f"slot {index} beside holes")
        assert [session.length(slot) for slot in slots] == [9] * self.num_slots

    @pytest.mark.parametrize("salt", range(3))
    def test_rows_that_join_and_leave_at_random_are_answered_like_single_runs(
        self, model: Model, session: StepSession, tolerance: float, salt: int
    ) -> None:
        dice = random.Random(self.seed * 1000 + salt)
        lengths = [dice.randint(1, 24) for _ in range(3 * self.num_slots)]
        waiting = [
            _Reader(text, single_run(session, text))
            for text in self.texts(model, lengths, salt=salt)
        ]
        running: list[_Reader] = []
        while waiting or running:
            while waiting and len(running) < self.num_slots:
                reader = waiting.pop()
                reader.slot = session.open()
                running.append(reader)
                if dice.random() < _PAUSE_CHANCE:
                    break
            members = dice.sample(running, dice.randint(1, len(running)))
            self._step_and_compare(session, members, dice, tolerance)
            for reader in members:
                if not reader.is_done and dice.random() < _REWIND_CHANCE:
                    reader.position = dice.randint(0, reader.position)
                    session.truncate(reader.slot, reader.position)
            for reader in [reader for reader in running if reader.is_done]:
                session.close(reader.slot)
                running.remove(reader)

    @staticmethod
    def _step_and_compare(
        session: StepSession, members: list[_Reader], dice: random.Random, tolerance: float
    ) -> None:
        rows = [reader.next_row(dice) for reader in members]
        logits = session.step(rows).logits
        line = 0
        for reader, row in zip(members, rows, strict=True):
            assert session.length(reader.slot) == reader.position
            wanted = reader.expected[reader.position - row.num_logits : reader.position]
            actual = logits[line : line + row.num_logits]
            assert_close(actual, wanted, tolerance, f"slot {reader.slot} at {reader.position}")
            line += row.num_logits
        assert line == len(logits), "lines that nobody wanted"

    def test_the_next_step_overwrites_nothing_but_the_view_of_the_logits(
        self, model: Model, session: StepSession
    ) -> None:
        one, other = self.texts(model, [5, 5])
        result = session.step([StepRow(session.open(), one)])
        before = copied(result)
        session.step([StepRow(session.open(), other)])
        for array, kept in zip(copied(result), before, strict=True):
            assert (array == kept).all()
