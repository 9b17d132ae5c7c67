"""All that a plug-in of whole calls has to pass: encoders, translators, tensor models."""
# ruff: noqa: D102, S101 - a test suite: the names are sentences, asserts are what it is for

from __future__ import annotations

import itertools
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from leptond.backend.conformance.comparing import assert_close
from leptond.backend.declarations import SessionKind, SessionOptions
from leptond.backend.rows import BatchRow, EmittedChunk
from leptond.backend.spi import BatchSession, Model
from leptond.errors import InvalidRequest

__all__ = ["BatchSessionConformance", "BatchTensorConformance"]


@dataclass
class _Answer:
    """What one row was given."""

    token_ids: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    tensors: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    num_chunks: int = 0
    is_final: bool = False


class _Reader:
    """The caller's side of a run: it takes chunks and holds the session to its promises.

    Args:
        num_rows: rows of the run.
        wants_more: asked after each chunk of a row, with its index; False ends the row.
    """

    def __init__(self, num_rows: int, wants_more: Callable[[int], bool] | None = None) -> None:
        self.answers = [_Answer() for _ in range(num_rows)]
        self.ended: set[int] = set()
        self._wants_more = wants_more
        self._thread = threading.get_ident()

    @property
    def num_chunks(self) -> int:
        return sum(answer.num_chunks for answer in self.answers)

    def emit(self, index: int, chunk: EmittedChunk) -> bool:
        assert threading.get_ident() == self._thread, "emit was called on another thread"
        assert 0 <= index < len(self.answers), f"there is no row {index}"
        answer = self.answers[index]
        assert not answer.is_final, f"row {index} got a chunk after its final one"
        assert index not in self.ended, f"row {index} got a chunk after it was ended"
        answer.num_chunks += 1
        answer.token_ids += chunk.token_ids
        answer.scores += chunk.scores
        answer.tensors |= chunk.tensors
        answer.is_final = chunk.is_final
        if self._wants_more is None or self._wants_more(index):
            return True
        self.ended.add(index)
        return False


class BatchSessionConformance:
    """The suite for a `BatchSession`.

    A subclass needs a fixture `model`, of any scope, that gives a loaded `Model`.

    Attributes:
        max_tokens: length of the sessions' rows.
        num_threads: threads of the sessions; 0 is the engine's choice.
        tolerance: how far scores and tensors of a row may be from those it has alone. Its token
            ids must be the same if the model says that it is deterministic.
        seed: of the random rows.
    """

    max_tokens: int = 64
    num_threads: int = 0
    tolerance: float = 1e-3
    seed: int = 0

    def rows(self, model: Model) -> list[BatchRow]:
        """At least three valid rows with answers that differ; here, random tokens."""
        dice = np.random.default_rng(self.seed)
        vocab_size = model.capabilities.vocab_size
        return [BatchRow(dice.integers(0, vocab_size, n).tolist()) for n in (3, 1, 12, 7)]

    def bad_row(self, model: Model) -> BatchRow:
        """A row that must be refused; here, a token beyond the vocabulary."""
        return BatchRow([model.capabilities.vocab_size])

    @pytest.fixture
    def session(self, model: Model) -> Iterator[BatchSession]:
        """A fresh session, shut down after the test."""
        session = self.open_session(model)
        yield session
        session.shutdown()

    def open_session(self, model: Model) -> BatchSession:
        """A session for as many rows as the model takes."""
        session = model.open_session(
            SessionOptions(model.capabilities.max_batch_rows, self.max_tokens, self.num_threads)
        )
        if not isinstance(session, BatchSession):
            pytest.fail(f"open_session gave a {type(session).__name__}, which is no BatchSession")
        return session

    def test_capabilities_are_declared_and_sane(self, model: Model) -> None:
        capabilities = model.capabilities
        assert capabilities == model.capabilities, "capabilities are constant"
        assert capabilities.kind is SessionKind.BATCH
        assert capabilities.tasks
        assert capabilities.devices
        assert capabilities.max_batch_rows >= len(self.rows(model))
        assert capabilities.max_slots == 0, "a batch model has no slots"

    def test_every_row_is_closed_exactly_once(self, model: Model, session: BatchSession) -> None:
        rows = self.rows(model)
        answers = run(session, rows)
        assert all(answer.is_final for answer in answers)
        if not model.capabilities.is_streaming:
            assert [answer.num_chunks for answer in answers] == [1] * len(rows)

    def test_rows_have_answers_of_their_own(self, model: Model, session: BatchSession) -> None:
        for one, other in itertools.combinations(run(session, self.rows(model)), 2):
            if (one.token_ids, one.scores) == (other.token_ids, other.scores):
                with pytest.raises(AssertionError):
                    self.assert_same(model, one, other)

    def test_a_row_is_answered_alone_as_in_company(
        self, model: Model, session: BatchSession
    ) -> None:
        rows = self.rows(model)
        for row, together in zip(rows, run(session, rows), strict=True):
            self.assert_same(model, together, run(session, [row])[0])

    def test_the_order_of_rows_changes_nothing(self, model: Model, session: BatchSession) -> None:
        rows = self.rows(model)
        forwards = run(session, rows)
        backwards = run(session, rows[::-1])
        for one, other in zip(forwards, backwards[::-1], strict=True):
            self.assert_same(model, one, other)

    def test_as_many_rows_fit_as_declared_and_no_more(
        self, model: Model, session: BatchSession
    ) -> None:
        rows = self.rows(model)
        limit = model.capabilities.max_batch_rows
        batch = [rows[index % len(rows)] for index in range(limit)]
        assert len(run(session, batch)) == limit
        assert_refused(session, [*batch, rows[0]])

    @pytest.mark.parametrize("place", ["first", "last"])
    def test_a_bad_row_is_refused_before_anything_ran(
        self, model: Model, session: BatchSession, place: str
    ) -> None:
        rows = self.rows(model)
        bad = [self.bad_row(model)]
        assert_refused(session, bad + rows[1:] if place == "first" else rows[:-1] + bad)
        assert all(answer.is_final for answer in run(session, rows))

    def test_a_row_that_its_reader_ends_leaves_the_others_alone(
        self, model: Model, session: BatchSession
    ) -> None:
        rows = self.rows(model)
        whole = run(session, rows)
        for ended in range(len(rows)):
            reader = _Reader(len(rows), wants_more=partial(operator.ne, ended))
            session.run(rows, reader.emit)
            assert reader.answers[ended].num_chunks == 1
            for index, answer in enumerate(reader.answers):
                if index != ended:
                    assert answer.is_final
                    self.assert_same(model, answer, whole[index])

    def test_an_interrupted_run_ends_early_and_the_next_one_is_whole(
        self, model: Model, session: BatchSession
    ) -> None:
        rows = self.rows(model)
        whole = run(session, rows)

        def interrupt(_index: int) -> bool:
            thread = threading.Thread(target=session.interrupt)
            thread.start()
            thread.join()
            return True

        reader = _Reader(len(rows), wants_more=interrupt)
        session.run(rows, reader.emit)
        if model.capabilities.is_cancellable and model.capabilities.is_streaming:
            assert reader.num_chunks < sum(answer.num_chunks for answer in whole)
        for one, other in zip(run(session, rows), whole, strict=True):
            self.assert_same(model, one, other)

    def test_an_interrupt_while_nothing_runs_is_forgotten(
        self, model: Model, session: BatchSession
    ) -> None:
        session.interrupt()
        session.interrupt()
        assert all(answer.is_final for answer in run(session, self.rows(model)))

    def test_shutdown_may_be_called_again_and_leaves_the_model_usable(self, model: Model) -> None:
        rows = self.rows(model)
        first = self.open_session(model)
        expected = run(first, rows)
        first.shutdown()
        first.shutdown()
        second = self.open_session(model)
        for one, other in zip(run(second, rows), expected, strict=True):
            self.assert_same(model, one, other)
        second.shutdown()

    def assert_same(self, model: Model, actual: _Answer, expected: _Answer) -> None:
        """Two answers to one row, within what the model promises."""
        if model.capabilities.is_deterministic:
            assert actual.token_ids == expected.token_ids
            assert_close(
                np.array(actual.scores), np.array(expected.scores), self.tolerance, "scores"
            )
        assert actual.tensors.keys() == expected.tensors.keys()
        for name, tensor in actual.tensors.items():
            assert tensor.dtype == expected.tensors[name].dtype
            assert_close(tensor, expected.tensors[name], self.tolerance, f"tensor {name}")


class BatchTensorConformance(BatchSessionConformance):
    """The suite for a `BatchSession` whose rows are answered with numeric tensors."""

    def test_tensors_land_in_the_buffers_that_were_named(
        self, model: Model, session: BatchSession
    ) -> None:
        rows = self.rows(model)
        expected = run(session, rows)
        batch, frames = [], []
        for row, answer in zip(rows, expected, strict=True):
            assert answer.tensors, "a row of this suite is answered with tensors"
            framed = {name: _framed(tensor) for name, tensor in answer.tensors.items()}
            frames.append(framed)
            buffers = {name: _inside(frame) for name, frame in framed.items()}
            batch.append(replace(row, outputs=buffers))
        answers = run(session, batch)
        for row, frame, answer, wanted in zip(batch, frames, answers, expected, strict=True):
            for name, buffer in row.outputs.items():
                assert_close(buffer, wanted.tensors[name], self.tolerance, f"buffer of {name}")
                assert np.shares_memory(answer.tensors[name], buffer), "a copy was emitted"
                assert (frame[name][[0, -1]] == 1).all(), "bytes beside the buffer were written"

    def test_a_buffer_of_the_wrong_shape_is_refused_before_anything_ran(
        self, model: Model, session: BatchSession
    ) -> None:
        rows = self.rows(model)
        (name, tensor), *_ = run(session, rows)[0].tensors.items()
        for wrong in (np.zeros((*tensor.shape, 2), tensor.dtype), np.zeros(tensor.shape, bool)):
            assert_refused(session, [replace(rows[0], outputs={name: wrong}), *rows[1:]])
        assert_refused(session, [replace(rows[0], outputs={"no such output": tensor}), *rows[1:]])


def run(session: BatchSession, batch: Sequence[BatchRow]) -> list[_Answer]:
    """The answers of a run that is read to its end."""
    reader = _Reader(len(batch))
    session.run(batch, reader.emit)
    return reader.answers


def assert_refused(session: BatchSession, batch: Sequence[BatchRow]) -> None:
    """`InvalidRequest`, and not one chunk."""
    reader = _Reader(len(batch))
    with pytest.raises(InvalidRequest):
        session.run(batch, reader.emit)
    assert reader.num_chunks == 0, "a chunk was emitted before the bad row was refused"


def _framed(tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Ones, with room for `tensor` and for one more of its kind on either side."""
    return np.ones((3, *tensor.shape), tensor.dtype)


def _inside(frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return frame[1:2].reshape(frame.shape[1:])
