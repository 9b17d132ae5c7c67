"""Which rows of an encoder run together, and where a call of several runs can be ended."""

from __future__ import annotations

import numpy as np
import pytest

from leptond.backend import BatchRow
from leptond.backend.conformance.batch import run
from leptond.backend.heads import Head
from leptond.errors import InvariantViolation
from leptond_onnxruntime.device import CpuDevice
from leptond_onnxruntime.encoder_session import MAX_RUN_CELLS, EncoderSession, plan_encoder_runs
from leptond_onnxruntime.graphs import Graph
from leptond_onnxruntime.importer.encoder_io import ENCODER_FILE, EncoderSpec
from leptond_onnxruntime.options import EngineOptions
from leptond_onnxruntime.plugin import backend
from tests.fixtures.tiny_models import vocabularies
from tests.fixtures.tiny_onnx import TinyOnnx

MAX_TOKENS = 64
ROWS_PER_RUN = MAX_RUN_CELLS // MAX_TOKENS


# ---------------------------------------------------------------------------------------- plans
@pytest.mark.parametrize(
    ("lengths", "runs"),
    [
        ([], []),
        ([7], [[0]]),
        ([3, 9, 5], [[1, 2, 0]]),
        ([4, 4, 4], [[0, 1, 2]]),
        ([MAX_RUN_CELLS // 2] * 3, [[0, 1], [2]]),
        ([1, MAX_RUN_CELLS], [[1], [0]]),
        ([1, MAX_RUN_CELLS + 1, 2], [[1], [2, 0]]),
        ([MAX_RUN_CELLS // 2 + 1, 1], [[0], [1]]),
        ([MAX_RUN_CELLS // 2, 1], [[0, 1]]),
    ],
)
def test_rows_of_like_lengths_run_together_longest_first(lengths, runs):
    assert plan_encoder_runs(lengths) == runs


def test_every_row_runs_once_and_no_run_is_too_large():
    lengths = np.random.default_rng(3).integers(1, 700, 256).tolist()
    runs = plan_encoder_runs(lengths)
    assert sorted(index for run in runs for index in run) == list(range(256))
    for indices in runs:
        assert len(indices) * max(lengths[index] for index in indices) <= MAX_RUN_CELLS
    # Sorted, rows waste little: all runs but the last are nearly full.
    assert sum(lengths) > 0.8 * MAX_RUN_CELLS * (len(runs) - 1)


# --------------------------------------------------------------------------------- interruption
class CountedGraph:
    """Counts the runs of the graph in a variant's directory."""

    def __init__(self, directory):
        options = EngineOptions(num_threads=1)
        self._graph = Graph.open(directory / ENCODER_FILE, CpuDevice(), options)
        self.directory = directory
        self.num_runs = 0

    def bind(self):
        """A run follows."""
        self.num_runs += 1
        return self._graph.bind()


@pytest.fixture
def graph(tmp_path):
    words, vocab_size = vocabularies.word_piece()
    words.save(str(tmp_path / "tokenizer.json"))
    file = TinyOnnx(vocab_size, max_positions=MAX_TOKENS).write(tmp_path / "model.onnx")
    directory = tmp_path / "variant"
    directory.mkdir()
    backend.importer.import_ready(file, tmp_path / "tokenizer.json", directory)
    return CountedGraph(directory)


@pytest.fixture
def session(graph):
    spec, head = EncoderSpec.read(graph.directory), Head.load(graph.directory)
    session = EncoderSession(spec, graph, head, max_rows=256, max_tokens=MAX_TOKENS)
    yield session
    session.shutdown()


def test_an_interrupt_ends_a_call_before_its_next_run(graph, session):
    rows = [BatchRow([5] * MAX_TOKENS)] * (2 * ROWS_PER_RUN + 1)
    assert all(answer.is_final for answer in run(session, rows))
    assert graph.num_runs == 3
    given = []

    def emit(index, chunk):
        given.append(index)
        session.interrupt()
        return True

    session.run(rows, emit)
    assert given == [0]
    assert graph.num_runs == 3 + 1
    # The session goes on, and an interrupt with nothing running is none.
    session.interrupt()
    assert all(answer.is_final for answer in run(session, rows[:3]))


def test_rows_get_their_own_answers_whatever_the_order_of_the_runs(session):
    lengths = [1, MAX_TOKENS, 2, *[MAX_TOKENS] * ROWS_PER_RUN, 3]
    rows = [BatchRow([5 + index % 20] * length) for index, length in enumerate(lengths)]
    together = run(session, rows)
    for index in (0, 1, 2, 40, len(rows) - 1):
        (alone,) = run(session, [rows[index]])
        np.testing.assert_allclose(
            together[index].tensors["embedding"], alone.tensors["embedding"], rtol=0, atol=1e-5
        )


def test_a_session_that_was_shut_down_refuses_calls(session):
    session.shutdown()
    with pytest.raises(InvariantViolation, match="after its shutdown"):
        run(session, [BatchRow([5])])
