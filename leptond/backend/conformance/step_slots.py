"""Slots: open, close, fork, truncate, and the memory behind them."""
# ruff: noqa: D102, S101 - a test suite: the names are sentences, asserts are what it is for

from __future__ import annotations

import pytest

from leptond.backend.conformance.comparing import assert_close
from leptond.backend.conformance.step_suite import StepSuite, filled, next_logits, single_run
from leptond.backend.declarations import SessionKind
from leptond.backend.rows import StepRow
from leptond.backend.spi import Model, StepSession
from leptond.errors import InvalidRequest, InvariantViolation, MemoryBudgetExceeded

__all__ = ["StepSlots"]

_MISUSE = (InvalidRequest, InvariantViolation)


class StepSlots(StepSuite):
    """Slots of a step session."""

    def test_capabilities_are_declared_and_sane(self, model: Model) -> None:
        capabilities = model.capabilities
        assert capabilities == model.capabilities, "capabilities are constant"
        assert capabilities.kind is SessionKind.STEP
        assert capabilities.tasks
        assert capabilities.devices
        assert capabilities.vocab_size > 1
        assert capabilities.max_slots >= self.num_slots
        assert capabilities.max_context_tokens >= self.max_tokens
        assert capabilities.max_batch_rows == 0, "a step model takes no whole calls"
        assert capabilities.ride_along_tokens >= 1

    def test_a_new_slot_is_empty(self, session: StepSession) -> None:
        assert session.length(session.open()) == 0

    def test_every_slot_can_be_open_at_once_and_no_more(self, session: StepSession) -> None:
        slots = [session.open() for _ in range(self.num_slots)]
        assert len(set(slots)) == self.num_slots
        with pytest.raises(MemoryBudgetExceeded):
            session.open()
        session.close(slots[1])
        session.open()
        with pytest.raises(MemoryBudgetExceeded):
            session.open()

    def test_a_reused_slot_remembers_nothing(
        self, model: Model, session: StepSession, tolerance: float
    ) -> None:
        old, new = self.texts(model, [20, 6])
        expected = single_run(session, new)
        slots = [filled(session, old) for _ in range(self.num_slots)]
        for slot in slots:
            session.close(slot)
        for _ in slots:
            slot = session.open()
            assert session.length(slot) == 0
            logits = session.step([StepRow(slot, new, num_logits=len(new))]).logits
            assert_close(logits, expected, tolerance, "answers in a reused slot")

    def test_a_slot_that_is_not_open_is_refused_by_every_verb(self, session: StepSession) -> None:
        closed = session.open()
        session.close(closed)
        for slot in (closed, -1, self.num_slots + 1000):
            for verb in (
                session.close,
                session.length,
                lambda slot: session.fork(slot, 0),
                lambda slot: session.truncate(slot, 0),
            ):
                with pytest.raises(_MISUSE):
                    verb(slot)

    def test_truncate_forgets_what_comes_after(
        self, model: Model, session: StepSession, tolerance: float
    ) -> None:
        (text,) = self.texts(model, [12])
        expected = single_run(session, text)
        slot = filled(session, text)
        for length in (12, 7, 1, 0):
            session.truncate(slot, length)
            assert session.length(slot) == length
            rest = text[length:]
            if rest:
                logits = session.step([StepRow(slot, rest, num_logits=len(rest))]).logits
                assert_close(logits, expected[length:], tolerance, f"answers after {length} kept")

    def test_truncate_leaves_other_slots_alone(
        self, model: Model, session: StepSession, tolerance: float
    ) -> None:
        one, other = self.texts(model, [9, 9])
        expected = single_run(session, other)
        slot, beside = filled(session, one), filled(session, other[:-1])
        session.truncate(slot, 2)
        assert session.length(beside) == len(other) - 1
        logits = next_logits(session, beside, other[-1])
        assert_close(logits, expected[-1], tolerance, "answer of the other slot")

    def test_truncate_to_more_than_is_there_is_refused(
        self, model: Model, session: StepSession
    ) -> None:
        slot = filled(session, self.texts(model, [3])[0])
        for length in (4, -1):
            with pytest.raises(_MISUSE):
                session.truncate(slot, length)
        assert session.length(slot) == 3  # noqa: PLR2004 - see above

    def test_a_fork_goes_on_like_its_source(
        self, model: Model, session: StepSession, tolerance: float
    ) -> None:
        (text,) = self.texts(model, [14])
        expected = single_run(session, text)
        source = filled(session, text[:-1])
        for length in (13, 5, 0):
            fork = session.fork(source, length)
            assert fork != source
            assert session.length(fork) == length
            rest = text[length:]
            logits = session.step([StepRow(fork, rest, num_logits=len(rest))]).logits
            assert_close(logits, expected[length:], tolerance, f"answers of a fork at {length}")
            session.close(fork)
        logits = next_logits(session, source, text[-1])
        assert_close(logits, expected[-1], tolerance, "answer of the source after its forks")

    def test_a_fork_and_its_source_go_separate_ways(
        self, model: Model, session: StepSession, tolerance: float
    ) -> None:
        shared, one, other = self.texts(model, [8, 6, 6])
        expected = [single_run(session, shared + tail)[-6:] for tail in (one, other)]
        source = filled(session, shared)
        fork = session.fork(source, len(shared))
        for position, tokens in enumerate(zip(one, other, strict=True)):
            rows = [
                StepRow(slot, [token]) for slot, token in zip((source, fork), tokens, strict=True)
            ]
            logits = session.step(rows).logits
            for line, single in enumerate(expected):
                assert_close(logits[line], single[position], tolerance, f"branch {line}")

    def test_a_fork_outlives_its_source(
        self, model: Model, session: StepSession, tolerance: float
    ) -> None:
        text, noise = self.texts(model, [10, 10])
        expected = single_run(session, text)
        source = filled(session, text[:-1])
        fork = session.fork(source, len(text) - 1)
        session.close(source)
        filled(session, noise)
        logits = next_logits(session, fork, text[-1])
        assert_close(logits, expected[-1], tolerance, "answer of a fork without its source")

    def test_a_fork_needs_a_free_slot_and_tokens_that_are_there(
        self, model: Model, session: StepSession
    ) -> None:
        source = filled(session, self.texts(model, [3])[0])
        for length in (4, -1):
            with pytest.raises(_MISUSE):
                session.fork(source, length)
        for _ in range(self.num_slots - 1):
            session.open()
        with pytest.raises(MemoryBudgetExceeded):
            session.fork(source, 3)

    def test_memory_comes_back_when_slots_are_closed(
        self, model: Model, session: StepSession
    ) -> None:
        (text,) = self.texts(model, [self.max_tokens])
        session.close(filled(session, text))
        before = session.resident_bytes()
        for _ in range(3):
            slots = [filled(session, text) for _ in range(self.num_slots)]
            full = session.resident_bytes()
            assert full > before, "tokens take memory"
            session.close(slots.pop())
            assert session.resident_bytes() < full, "a closed slot gives its memory back at once"
            for slot in slots:
                session.close(slot)
            assert session.resident_bytes() <= before + self.slack_bytes

    def test_shutdown_may_be_called_again_and_leaves_the_model_usable(
        self, model: Model, tolerance: float
    ) -> None:
        (text,) = self.texts(model, [5])
        first = self.open_session(model)
        expected = single_run(first, text)
        filled(first, text)
        first.shutdown()
        first.shutdown()
        second = self.open_session(model)
        assert_close(single_run(second, text), expected, tolerance, "answers of the next session")
        second.shutdown()

    def test_sessions_of_one_model_do_not_see_each_other(
        self, model: Model, session: StepSession, tolerance: float
    ) -> None:
        one, other = self.texts(model, [8, 8])
        expected = single_run(session, one)
        beside = self.open_session(model)
        slot = filled(session, one[:-1])
        filled(beside, other)
        logits = next_logits(session, slot, one[-1])
        assert_close(logits, expected[-1], tolerance, "answer beside another session")
        beside.shutdown()
        assert session.length(slot) == len(one)
