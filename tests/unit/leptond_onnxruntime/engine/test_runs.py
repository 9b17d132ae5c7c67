from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptond.errors import InvariantViolation
from leptond_onnxruntime.runs import RunLimits, StepSlice, plan_runs

LIMITS = RunLimits(ride_along_tokens=8, max_run_tokens=32, max_run_cells=64)


def rows(*lengths, start=0, past=0, num_wanted=1):
    """One row per length, in neighbouring slots; 0 leaves a hole."""
    result = []
    line = 0
    for index, length in enumerate(lengths, start):
        if length:
            wanted = min(num_wanted, length)
            result.append(StepSlice(index, past, range(length), wanted, line))
            line += wanted
    return result


def shapes(runs):
    """Per run, the slot and length of each piece."""
    return [[(piece.index, len(piece.token_ids)) for piece in run.pieces] for run in runs]


def test_decode_rows_go_through_one_run_with_holes_between_them():
    (run,) = plan_runs(rows(1, 0, 1, 1, start=3), LIMITS)
    assert (run.first_index, run.num_slots, run.longest) == (3, 4, 1)
    assert run.num_tokens == 3


def test_a_short_chunk_rides_along_with_decode_rows():
    assert shapes(plan_runs(rows(1, 8, 1), LIMITS)) == [[(0, 1), (1, 8), (2, 1)]]


def test_a_longer_chunk_gets_a_run_of_its_own_before_the_others():
    assert shapes(plan_runs(rows(1, 9, 1), LIMITS)) == [[(1, 9)], [(0, 1), (2, 1)]]


def test_equally_long_neighbours_share_a_run_as_far_as_its_tokens_go():
    runs = plan_runs(rows(10, 10, 10, 10), LIMITS)
    assert shapes(runs) == [[(0, 10), (1, 10), (2, 10)], [(3, 10)]]


def test_long_rows_of_other_lengths_or_with_a_hole_between_them_do_not_share():
    assert shapes(plan_runs(rows(10, 11), LIMITS)) == [[(0, 10)], [(1, 11)]]
    assert shapes(plan_runs(rows(10, 0, 10), LIMITS)) == [[(0, 10)], [(2, 10)]]


def test_a_row_longer_than_a_run_is_cut_and_its_short_rest_rides_along():
    runs = plan_runs(rows(1, 70, 1), LIMITS)
    assert shapes(runs) == [[(1, 32)], [(1, 32)], [(0, 1), (1, 6), (2, 1)]]
    assert [run.pieces[0].past for run in runs[:2]] == [0, 32]
    assert runs[2].pieces[1].past == 64


def test_wanted_positions_follow_their_tokens_into_the_pieces():
    (row,) = rows(70, num_wanted=40, past=5)
    pieces = [piece for run in plan_runs([row], LIMITS) for piece in run.pieces]
    assert [piece.num_wanted for piece in pieces] == [2, 32, 6]
    assert [piece.first_line for piece in pieces] == [0, 2, 34]


def test_short_rows_that_would_be_mostly_padding_are_split():
    limits = RunLimits(ride_along_tokens=8, max_run_tokens=32, max_run_cells=40)
    runs = plan_runs(rows(1, 1, 1, 1, 1, 8), limits)
    assert shapes(runs) == [[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)], [(5, 8)]]


def test_rows_that_may_ride_along_must_be_shorter_than_a_run():
    with pytest.raises(InvariantViolation):
        RunLimits(ride_along_tokens=32, max_run_tokens=32)


@st.composite
def steps(draw):
    indices = draw(st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True))
    result = []
    line = 0
    for index in indices:
        length = draw(st.one_of(st.just(1), st.integers(1, 8), st.integers(1, 100)))
        wanted = draw(st.integers(0, length))
        past = draw(st.integers(0, 50))
        result.append(
            StepSlice(index, past, [1000 * index + k for k in range(length)], wanted, line)
        )
        line += wanted
    return result


@given(steps())
def test_every_token_runs_once_in_order_and_every_line_is_answered_once(step):
    runs = plan_runs(step, LIMITS)
    for row in step:
        pieces = [piece for run in runs for piece in run.pieces if piece.index == row.index]
        tokens = [token for piece in pieces for token in piece.token_ids]
        assert tokens == list(row.token_ids)
        past = row.past
        for piece in pieces:
            assert piece.past == past
            past += len(piece.token_ids)
        lines = [
            line
            for piece in pieces
            for line in range(piece.first_line, piece.first_line + piece.num_wanted)
        ]
        assert lines == list(range(row.first_line, row.first_line + row.num_wanted))


@given(steps())
def test_no_run_breaks_its_limits(step):
    for run in plan_runs(step, LIMITS):
        assert run.num_tokens <= LIMITS.max_run_tokens
        indices = [piece.index for piece in run.pieces]
        assert all(before < after for before, after in itertools.pairwise(indices))
        if run.longest <= LIMITS.ride_along_tokens:
            assert run.num_slots * run.longest <= LIMITS.max_run_cells or len(run.pieces) == 1
        else:
            assert run.has_no_padding
