from __future__ import annotations

import math

import numpy as np
import pytest

from leptond.backend import BatchRow, EmittedChunk, SessionKind, SessionOptions
from leptond.backend.fake import (
    EMBEDDING_DIMENSIONS,
    END_OF_TURN,
    FakeLanguage,
    FakeModel,
    FakeOptions,
    TokenHistory,
    expected_tokens,
)
from leptond.errors import (
    BackendCrashed,
    BackendFault,
    InvalidRequest,
    InvariantViolation,
    RequestTooLarge,
)

PROMPT = list(b"Good morning\n")
EMBED = {"task": "embed"}


class Emitted(list[tuple[int, EmittedChunk]]):
    """Takes chunks in order."""

    def take(self, index, chunk):
        self.append((index, chunk))
        return True

    def tokens(self, index):
        return [token for row, chunk in self if row == index for token in chunk.token_ids]


@pytest.fixture
def emitted():
    return Emitted()


def open_session(sleep=lambda seconds: None, **options):
    model = FakeModel(FakeOptions(SessionKind.BATCH, **options), sleep)
    return model.open_session(SessionOptions(model.capabilities.max_batch_rows, 64))


def test_a_translation_is_the_greedy_continuation_token_by_token(emitted):
    open_session(mean_sentences=0).run([BatchRow(PROMPT, options={"max_tokens": 9})], emitted.take)
    assert emitted.tokens(0) == expected_tokens(PROMPT, 9)
    assert [len(chunk.token_ids) for _, chunk in emitted] == [1] * 9 + [0]
    assert [chunk.is_final for _, chunk in emitted] == [False] * 9 + [True]
    language, history = FakeLanguage(mean_sentences=0), TokenHistory(PROMPT)
    for _, chunk in emitted[:-1]:
        logits = language.logits(history, len(history)).astype(np.float64)
        expected = logits[chunk.token_ids[0]] - np.log(np.exp(logits).sum())
        assert chunk.scores[0] == pytest.approx(expected, abs=1e-5)
        history.extend(chunk.token_ids)


def test_a_translation_ends_with_the_turn(emitted):
    row = BatchRow(PROMPT, options={"max_tokens": 500})
    open_session(mean_sentences=1).run([row], emitted.take)
    expected = expected_tokens(
        PROMPT, 500, FakeOptions(mean_sentences=1), stop_token_ids=frozenset({END_OF_TURN})
    )
    assert emitted.tokens(0) == expected
    assert emitted[-1][1].is_final


def test_chunks_of_rows_that_run_together_interleave(emitted):
    rows = [BatchRow([number], options={"max_tokens": 2}) for number in (1, 2)]
    open_session().run(rows, emitted.take)
    assert [index for index, _ in emitted] == [0, 1, 0, 1, 0, 1]


def test_an_embedding_is_one_tensor(emitted):
    open_session().run([BatchRow(PROMPT, options=EMBED)], emitted.take)
    ((_, chunk),) = emitted
    assert chunk.is_final
    expected = FakeLanguage().embed(PROMPT, EMBEDDING_DIMENSIONS)
    assert np.array_equal(chunk.tensors["embedding"], expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.uint8])
def test_tensors_come_back_scaled_in_their_own_type(emitted, dtype):
    x = np.arange(6, dtype=dtype).reshape(2, 3)
    open_session().run([BatchRow(tensors={"x": x})], emitted.take)
    answer = emitted[0][1].tensors["x"]
    assert answer.dtype == dtype
    assert answer.tolist() == [[1, 3, 5], [7, 9, 11]]


def test_a_scalar_comes_back_as_an_array(emitted):
    open_session().run([BatchRow(tensors={"x": np.array(2.0)})], emitted.take)
    assert emitted[0][1].tensors["x"].tolist() == 5.0


def test_a_named_buffer_is_written(emitted):
    buffer = np.zeros(EMBEDDING_DIMENSIONS, np.float32)
    row = BatchRow(PROMPT, options=EMBED, outputs={"embedding": buffer})
    open_session().run([row], emitted.take)
    assert emitted[0][1].tensors["embedding"] is buffer
    assert math.isclose(np.linalg.norm(buffer), 1, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (BatchRow(), "needs tokens or tensors"),
        (BatchRow([259]), "not below 259"),
        (BatchRow([1], options={"max_tokens": -1}), "max_tokens = -1"),
        (BatchRow([1], options={"max_tokens": "9"}), "max_tokens = '9'"),
        (BatchRow(tensors={"x": np.array(["a"])}), "tensor x is of <U1, which is no number"),
        (BatchRow([1], outputs={"y": np.zeros(1)}), "there is no output y"),
        (
            BatchRow([1], options=EMBED, outputs={"embedding": np.zeros(3, np.float32)}),
            r"the buffer of output embedding must be writable float32 \[32\]",
        ),
        (
            BatchRow(tensors={"x": np.zeros(2)}, outputs={"x": np.zeros(2, np.float32)}),
            r"the buffer of output x must be writable float64 \[2\]",
        ),
    ],
)
def test_a_bad_row_is_refused_by_name(emitted, row, message):
    with pytest.raises(InvalidRequest, match=message):
        open_session().run([BatchRow(PROMPT), row], emitted.take)
    assert emitted == []


def test_a_row_that_is_too_long_is_refused(emitted):
    with pytest.raises(RequestTooLarge, match="65 tokens; at most 64 fit"):
        open_session().run([BatchRow([1] * 65)], emitted.take)


def test_a_buffer_that_cannot_be_written_is_refused(emitted):
    buffer = np.zeros(2)
    buffer.flags.writeable = False
    with pytest.raises(InvalidRequest, match="must be writable"):
        open_session().run(
            [BatchRow(tensors={"x": np.zeros(2)}, outputs={"x": buffer})], emitted.take
        )


def test_a_poisonous_row_fails_its_batch_and_not_its_mates_alone(emitted):
    session = open_session(poison_token=7)
    rows = [BatchRow([1]), BatchRow([7])]
    with pytest.raises(BackendFault, match="poisonous"):
        session.run(rows, emitted.take)
    assert emitted == []
    session.run(rows[:1], emitted.take)
    assert emitted[-1][1].is_final


def test_a_crash_ends_the_session(emitted):
    session = open_session(crash_at=1)
    for _ in range(2):
        with pytest.raises(BackendCrashed):
            session.run([BatchRow([1])], emitted.take)


def test_a_run_takes_the_time_of_its_prompts_and_of_each_step(emitted):
    naps: list[float] = []
    session = open_session(naps.append, tokens_per_s=10, prefill_tokens_per_s=100, row_ms=1)
    session.run([BatchRow([1] * 5, options={"max_tokens": 2}), BatchRow([1])], emitted.take)
    assert naps[0] == pytest.approx(0.1 + 0.002 + 4 * 0.01)
    assert naps[1] == pytest.approx(0.1 + 0.002)
    assert naps[3] == pytest.approx(0.1 + 0.001)


def test_an_interrupt_ends_a_run_before_its_next_row(emitted):
    session = open_session()

    def take_one_and_interrupt(index, chunk):
        session.interrupt()
        return emitted.take(index, chunk)

    rows = [BatchRow([1], options=EMBED), BatchRow([2], options=EMBED), BatchRow([3])]
    session.run(rows, take_one_and_interrupt)
    assert [index for index, _ in emitted] == [0]


def test_a_session_that_was_shut_down_refuses_to_run(emitted):
    session = open_session()
    session.shutdown()
    with pytest.raises(InvariantViolation, match="after its shutdown"):
        session.run([BatchRow([1])], emitted.take)
