from __future__ import annotations

import numpy as np
import pytest

from leptond.backend import RowPick
from leptond.backend.conformance.comparing import assert_answers_itself
from leptond_onnxruntime.device import CpuDevice
from leptond_onnxruntime.graphs import Graph
from leptond_onnxruntime.head_runner import MAX_HEAD_ROWS, HeadRunner
from leptond_onnxruntime.importer import GraphSpec
from leptond_onnxruntime.importer import graph_io as io
from leptond_onnxruntime.options import EngineOptions


class WatchedGraph:
    """A graph that notes the shapes of what its runs are fed with."""

    def __init__(self, graph):
        self._graph = graph
        self.shapes = []

    def bind(self):
        binding = self._graph.bind()
        feeds = {}
        feed, run = binding.feed, binding.run

        def noted_feed(name, array):
            feeds[name] = array.shape
            feed(name, array)

        def noted_run():
            self.shapes.append(dict(feeds))
            run()

        binding.feed, binding.run = noted_feed, noted_run
        return binding


@pytest.fixture
def spec(tiny_source):
    return GraphSpec.read(tiny_source().directory)


@pytest.fixture
def graph(tiny_source):
    path = tiny_source().directory / io.HEAD_FILE
    return WatchedGraph(Graph.open(path, CpuDevice(), EngineOptions(num_threads=1)))


@pytest.fixture
def head(graph, spec):
    return HeadRunner(graph, spec)


def hidden_rows(spec, num_lines):
    rng = np.random.default_rng(0)
    return rng.standard_normal((num_lines, spec.hidden_size)).astype(np.float32)


def picks_of(spec, num_lines):
    """Every third line plain, every third with all there is, every third with a bias alone."""
    rng = np.random.default_rng(1)
    repetition = rng.uniform(1, 2, spec.vocab_size).astype(np.float32)
    biases = rng.standard_normal((num_lines, spec.vocab_size)).astype(np.float32)
    kinds = [
        lambda line: None,
        lambda line: RowPick(0.5, repetition, biases[line]),
        lambda line: RowPick(bias=biases[line]),
    ]
    return [kinds[line % 3](line) for line in range(num_lines)]


@pytest.mark.parametrize("num_lines", [1, 2, MAX_HEAD_ROWS, MAX_HEAD_ROWS + 1, 3 * MAX_HEAD_ROWS])
def test_every_line_is_answered_with_its_own_pick_whatever_the_pieces(head, spec, num_lines):
    picks = picks_of(spec, num_lines)
    result = head.run(hidden_rows(spec, num_lines), picks)
    assert len(result.logits) == num_lines
    for line, pick in enumerate(picks):
        assert_answers_itself(result, line, pick, 1e-4)


def test_many_lines_run_in_pieces(head, graph, spec):
    num_lines = 2 * MAX_HEAD_ROWS + 5
    head.run(hidden_rows(spec, num_lines), [None] * num_lines)
    assert [shapes[io.HIDDEN][0] for shapes in graph.shapes] == [MAX_HEAD_ROWS, MAX_HEAD_ROWS, 5]


def test_no_lines_run_nothing(head, graph, spec):
    result = head.run(hidden_rows(spec, 0), [])
    assert graph.shapes == []
    assert result.logits.shape == (0, spec.vocab_size)
    assert result.candidate_ids.shape == (0, spec.num_candidates)


def test_what_no_row_uses_is_one_number(head, graph, spec):
    head.run(hidden_rows(spec, 3), [None, RowPick(), None])
    (shapes,) = graph.shapes
    assert shapes[io.REPETITION] == shapes[io.BIAS] == shapes[io.TEMPERATURE] == (1, 1)


def test_what_all_rows_share_is_one_line(head, graph, spec):
    pick = RowPick(0.7, bias=np.zeros(spec.vocab_size, np.float32))
    head.run(hidden_rows(spec, 3), [pick] * 3)
    (shapes,) = graph.shapes
    assert shapes[io.BIAS] == (1, spec.vocab_size)
    assert shapes[io.TEMPERATURE] == shapes[io.REPETITION] == (1, 1)


def test_a_strided_bias_is_read_in_its_own_order(head, spec):
    bias = np.random.default_rng(2).standard_normal(2 * spec.vocab_size).astype(np.float32)[::2]
    pick = RowPick(bias=bias)
    assert_answers_itself(head.run(hidden_rows(spec, 1), [pick]), 0, pick, 1e-4)


def test_the_logits_of_every_step_lie_in_the_same_memory(head, spec):
    addresses = {
        head.run(hidden_rows(spec, n), [None] * n).logits.ctypes.data for n in (1, 5, MAX_HEAD_ROWS)
    }
    assert len(addresses) == 1


def test_room_for_many_lines_is_given_back_with_the_next_step(head, spec):
    many = head.run(hidden_rows(spec, 200), [None] * 200).logits
    assert many.base.shape == (200, spec.vocab_size)
    few = head.run(hidden_rows(spec, 2), [None] * 2).logits
    assert few.base.shape == (MAX_HEAD_ROWS, spec.vocab_size)
