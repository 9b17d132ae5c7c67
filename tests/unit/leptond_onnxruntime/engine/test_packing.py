from __future__ import annotations

import numpy as np

from leptond_onnxruntime.body_runner import pack, wanted_rows
from leptond_onnxruntime.importer import graph_io as io
from leptond_onnxruntime.runs import EngineRun, StepSlice

RUN = EngineRun(
    (
        StepSlice(4, 7, np.array([50, 51]), num_wanted=1, first_line=3),
        StepSlice(6, 0, np.array([60, 61, 62]), num_wanted=2, first_line=0),
    )
)


def test_tokens_are_packed_row_after_row():
    assert pack(RUN)[io.INPUT_IDS].tolist() == [50, 51, 60, 61, 62]


def test_the_grid_says_where_each_rows_tokens_lie_and_valid_finds_them_again():
    packed = pack(RUN)
    assert packed[io.GRID].tolist() == [[0, 1, 0], [0, 0, 0], [2, 3, 4]]
    assert packed[io.VALID].tolist() == [0, 1, 6, 7, 8]
    assert packed[io.GRID].reshape(-1)[packed[io.VALID]].tolist() == [0, 1, 2, 3, 4]


def test_a_hole_has_no_new_token_and_one_cached_one():
    packed = pack(RUN)
    assert packed[io.QUERY_SEQLENS].tolist() == [2, 0, 3]
    assert packed[io.SEQLENS_K].tolist() == [8, 0, 2]
    assert packed[io.TOTAL] == 9


def test_types_and_shapes_are_those_of_the_graph():
    packed = pack(RUN)
    for name in (io.INPUT_IDS, io.GRID, io.VALID):
        assert packed[name].dtype == np.int64
    for name in (io.QUERY_SEQLENS, io.SEQLENS_K, io.TOTAL):
        assert packed[name].dtype == np.int32
    assert packed[io.TOTAL].shape == ()
    assert all(array.flags.c_contiguous for array in packed.values())


def test_the_total_is_at_least_the_padded_length():
    run = EngineRun((StepSlice(0, 0, np.array([5]), 1, 0),))
    assert pack(run)[io.TOTAL] == 1


def test_wanted_rows_are_listed_by_line():
    lines, rows = wanted_rows(RUN)
    assert lines.tolist() == [0, 1, 3]
    assert rows.tolist() == [3, 4, 1]


def test_a_run_may_want_nothing():
    lines, rows = wanted_rows(EngineRun((StepSlice(0, 0, np.array([5]), 0, 0),)))
    assert (lines.shape, rows.shape) == ((0,), (0,))
    assert rows.dtype == np.int64
