from __future__ import annotations

import threading

import numpy as np
import pytest

from leptond.backend import BatchRow, EmittedChunk
from leptond.backend.answers import Answers


class Caller:
    """Takes chunks of three rows; `ends` says which row it wants no more of."""

    def __init__(self, outputs=()):
        self.chunks = []
        self.ends = set()
        self.interrupted = threading.Event()
        rows = [BatchRow([1], outputs=dict(outputs)) for _ in range(3)]
        self.answers = Answers(rows, self.emit, self.interrupted)

    def emit(self, index, chunk):
        self.chunks.append((index, chunk))
        return index not in self.ends


@pytest.fixture
def caller():
    return Caller()


TOKEN = EmittedChunk((7,))
LAST = EmittedChunk((8,), is_final=True)


def test_a_row_takes_chunks_until_its_final_one(caller):
    assert caller.answers.give(0, TOKEN)
    assert not caller.answers.give(0, LAST)
    assert not caller.answers.give(0, TOKEN)
    caller.answers.finish_empty(0)
    assert [index for index, _ in caller.chunks] == [0, 0]


def test_a_row_that_its_caller_ended_takes_nothing_more(caller):
    caller.ends.add(1)
    assert not caller.answers.give(1, TOKEN)
    caller.answers.finish(1, {"x": np.zeros(1)})
    caller.answers.finish_empty(1)
    assert len(caller.chunks) == 1
    assert caller.answers.give(0, TOKEN)


def test_after_an_interrupt_nothing_is_given(caller):
    caller.answers.give(0, TOKEN)
    caller.interrupted.set()
    assert caller.answers.is_interrupted
    assert not caller.answers.give(0, TOKEN)
    for index in range(3):
        caller.answers.finish_empty(index)
    assert len(caller.chunks) == 1


def test_an_interrupt_inside_a_chunk_ends_its_row(caller):
    def emit(index, chunk):
        caller.interrupted.set()
        return True

    answers = Answers([BatchRow([1])], emit, caller.interrupted)
    assert not answers.give(0, TOKEN)


def test_an_answer_lands_in_the_buffer_that_was_named():
    buffer = np.zeros(2, np.float32)
    caller = Caller({"embedding": buffer})
    caller.answers.finish(2, {"embedding": np.array([1, 2], np.float32)})
    ((index, chunk),) = caller.chunks
    assert (index, chunk.is_final) == (2, True)
    assert chunk.tensors["embedding"] is buffer
    assert buffer.tolist() == [1, 2]
