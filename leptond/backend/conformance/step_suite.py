"""What the tests of step sessions stand on: settings, a session per test, texts and single runs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from leptond.backend.declarations import SessionOptions
from leptond.backend.rows import RowPick, StepResult, StepRow
from leptond.backend.spi import Model, StepSession

__all__ = ["Logits", "StepSuite"]

Logits = npt.NDArray[np.float32]


class StepSuite:
    """Settings of a step suite, to be overridden as class attributes.

    A subclass needs a fixture `model`, of any scope, that gives a loaded `Model`.

    Attributes:
        num_slots: slots of the sessions; at least 3.
        max_tokens: length of the slots; at least 32.
        num_threads: threads of the sessions; 0 is the engine's choice.
        logit_tolerance: how far a row's logits may be from those of the single run. None is
            1e-6 for a model that says it is deterministic, and 1e-3 for others.
        arithmetic_tolerance: how far candidates and normalisers may be from float64 arithmetic
            on the very same raw logits.
        slack_bytes: memory that may stay resident when the last slot is closed.
        seed: of the random texts and of the random joins.
    """

    num_slots: int = 4
    max_tokens: int = 64
    num_threads: int = 0
    logit_tolerance: float | None = None
    arithmetic_tolerance: float = 1e-3
    slack_bytes: int = 0
    seed: int = 0

    @pytest.fixture
    def session(self, model: Model) -> Iterator[StepSession]:
        """A fresh session, shut down after the test."""
        session = self.open_session(model)
        yield session
        session.shutdown()

    @pytest.fixture
    def tolerance(self, model: Model) -> float:
        """How far logits may be from those of the single run."""
        if self.logit_tolerance is not None:
            return self.logit_tolerance
        return 1e-6 if model.capabilities.is_deterministic else 1e-3

    def open_session(self, model: Model) -> StepSession:
        """A session of the suite's size."""
        session = model.open_session(
            SessionOptions(self.num_slots, self.max_tokens, self.num_threads)
        )
        if not isinstance(session, StepSession):
            pytest.fail(f"open_session gave a {type(session).__name__}, which is no StepSession")
        return session

    def texts(self, model: Model, lengths: Sequence[int], salt: int = 0) -> list[list[int]]:
        """Random token ids, the same on every run: one list per length."""
        dice = random.Random(self.seed * 1000 + salt)
        vocab_size = model.capabilities.vocab_size
        return [[dice.randrange(vocab_size) for _ in range(length)] for length in lengths]


def filled(session: StepSession, tokens: Sequence[int]) -> int:
    """A new slot that holds `tokens`, at least one."""
    slot = session.open()
    session.step([StepRow(slot, tokens, num_logits=0)])
    return slot


def next_logits(session: StepSession, slot: int, token: int, pick: RowPick | None = None) -> Logits:
    """Append one token alone in its step; a copy of the logits that follow: `[vocab_size]`."""
    return np.array(session.step([StepRow(slot, [token], pick=pick)]).logits[0])


def single_run(session: StepSession, tokens: Sequence[int]) -> Logits:
    """The yardstick: all tokens in one step, with nobody beside: `[len(tokens), vocab_size]`."""
    slot = session.open()
    result = session.step([StepRow(slot, tokens, num_logits=len(tokens))])
    logits = np.array(result.logits)
    session.close(slot)
    return logits


def copied(result: StepResult) -> list[npt.NDArray[Any]]:
    """Copies of the arrays of a result that the next step must leave alone."""
    return [
        np.array(array)
        for array in (
            result.candidate_ids,
            result.candidate_logits,
            result.log_normalizer,
            result.raw_log_normalizer,
        )
    ]
