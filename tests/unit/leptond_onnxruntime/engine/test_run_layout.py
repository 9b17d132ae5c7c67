from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from leptond_onnxruntime.importer import graph_io as io
from leptond_onnxruntime.run_layout import RunLayout, run_shape
from leptond_onnxruntime.runs import EngineRun, StepSlice

RUN = EngineRun(
    (
        StepSlice(4, 7, [50, 51], num_wanted=1, first_line=3),
        StepSlice(6, 0, [60, 61, 62], num_wanted=2, first_line=0),
    )
)


def test_tokens_are_packed_row_after_row():
    assert RunLayout(RUN).feeds[io.INPUT_IDS].tolist() == [50, 51, 60, 61, 62]


def test_the_grid_says_where_each_rows_tokens_lie_and_valid_finds_them_again():
    feeds = RunLayout(RUN).feeds
    assert feeds[io.GRID].tolist() == [[0, 1, 0], [0, 0, 0], [2, 3, 4]]
    assert feeds[io.VALID].tolist() == [0, 1, 6, 7, 8]
    assert feeds[io.GRID].reshape(-1)[feeds[io.VALID]].tolist() == [0, 1, 2, 3, 4]


def test_a_hole_has_no_new_token_and_one_cached_one():
    feeds = RunLayout(RUN).feeds
    assert feeds[io.QUERY_SEQLENS].tolist() == [2, 0, 3]
    assert feeds[io.SEQLENS_K].tolist() == [8, 0, 2]
    assert feeds[io.TOTAL] == 9


def test_types_and_shapes_are_those_of_the_graph():
    feeds = RunLayout(RUN).feeds
    for name in (io.INPUT_IDS, io.GRID, io.VALID, io.LOGIT_ROWS):
        assert feeds[name].dtype == np.int64
    for name in (io.QUERY_SEQLENS, io.SEQLENS_K, io.TOTAL):
        assert feeds[name].dtype == np.int32
    assert feeds[io.TOTAL].shape == ()
    assert all(array.flags.c_contiguous for array in feeds.values())


def test_wanted_rows_are_listed_by_line():
    layout = RunLayout(RUN)
    assert layout.lines.tolist() == [0, 1, 3]
    assert layout.feeds[io.LOGIT_ROWS].tolist() == [3, 4, 1]


def test_a_run_may_want_nothing():
    layout = RunLayout(EngineRun((StepSlice(0, 0, [5], 0, 0),)))
    assert layout.lines.shape == layout.feeds[io.LOGIT_ROWS].shape == (0,)


lengths = st.lists(st.integers(0, 5), min_size=1, max_size=8).filter(any)


@st.composite
def two_runs_of_one_shape(draw):
    shape = [(index, length) for index, length in enumerate(draw(lengths)) if length]
    wanted = [draw(st.integers(0, length)) for _, length in shape]
    runs = []
    for _ in range(2):
        line = 0
        pieces = []
        for (index, length), num_wanted in zip(shape, wanted, strict=True):
            tokens = draw(st.lists(st.integers(0, 99), min_size=length, max_size=length))
            pieces.append(StepSlice(index, draw(st.integers(0, 50)), tokens, num_wanted, line))
            line += num_wanted
        runs.append(EngineRun(tuple(pieces)))
    return runs


@given(two_runs_of_one_shape())
def test_a_layout_that_is_written_again_is_that_of_the_other_run(runs):
    first, second = runs
    assert run_shape(first) == run_shape(second)
    layout = RunLayout(first)
    before = dict(layout.feeds)
    layout.write(second)
    for name, expected in RunLayout(second).feeds.items():
        assert layout.feeds[name] is before[name]
        assert np.array_equal(layout.feeds[name], expected), name
