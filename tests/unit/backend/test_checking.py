from __future__ import annotations

import math

import numpy as np
import pytest

from leptond.backend import RowPick, StepRow
from leptond.backend.checking import check_rows
from leptond.errors import InvalidRequest, RequestTooLarge

LENGTHS = {0: 0, 1: 6}


def length(slot):
    if slot not in LENGTHS:
        raise InvalidRequest(f"slot {slot} is not open")
    return LENGTHS[slot]


def check(*rows):
    check_rows(rows, length, vocab_size=10, max_tokens=8)


def test_good_rows_pass():
    ones = np.ones(10, np.float32)
    check()
    check(StepRow(0, [0, 9] * 4, num_logits=0), StepRow(1, (1, 2), num_logits=2))
    check(StepRow(0, [1], pick=RowPick(0.1, repetition=ones, bias=ones)))


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        (StepRow(2, [1]), None, "slot 2 is not open"),
        (StepRow(0, []), "token_ids", "at least one token"),
        (StepRow(0, [1], num_logits=2), "num_logits", "2 logits of 1 new tokens"),
        (StepRow(0, [1], num_logits=-1), "num_logits", "-1 logits"),
        (StepRow(0, [1, -1, 3]), "token_ids", "token -1 is not among the 10"),
        (StepRow(0, [1, 10, 3]), "token_ids", "token 10 is not among the 10"),
        (StepRow(0, [1], pick=RowPick(0.0)), "pick.temperature", "a temperature of 0.0"),
        (StepRow(0, [1], pick=RowPick(math.nan)), "pick.temperature", "of nan"),
        (StepRow(0, [1], pick=RowPick(math.inf)), "pick.temperature", "of inf"),
        (
            StepRow(0, [1], pick=RowPick(bias=np.zeros(9, np.float32))),
            "pick.bias",
            r"bias must be float32 \[10\], not float32 \[9\]",
        ),
        (
            StepRow(0, [1], pick=RowPick(repetition=np.zeros(10).view(np.float64))),
            "pick.repetition",
            r"repetition must be float32 \[10\], not float64 \[10\]",
        ),
    ],
)
def test_a_bad_row_is_refused_by_field(row, field, message):
    with pytest.raises(InvalidRequest, match=message) as caught:
        check(StepRow(1, [1]), row)
    assert caught.value.field == field


def test_more_tokens_than_fit_are_too_large():
    with pytest.raises(RequestTooLarge, match="slot 1 would hold 9 tokens; at most 8 fit"):
        check(StepRow(1, [1, 2, 3]))


def test_two_rows_of_one_slot_are_refused():
    with pytest.raises(InvalidRequest, match="slot 0 has two rows"):
        check(StepRow(0, [1]), StepRow(0, [2]))
