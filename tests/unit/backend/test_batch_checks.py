from __future__ import annotations

import numpy as np
import pytest

from leptond.backend import BatchRow
from leptond.backend.batch_checks import (
    check_ids,
    check_known_options,
    check_outputs,
    check_task,
    read_ids,
    shared_options,
)
from leptond.errors import InvalidRequest, RequestTooLarge


def test_rows_share_their_options_but_for_those_kept_apart():
    rows = [BatchRow([1], options={"max_tokens": n, "beam_size": 1}) for n in (3, 4)]
    shared_options(rows, apart={"max_tokens"})
    with pytest.raises(InvalidRequest, match="max_tokens differs"):
        shared_options(rows)
    with pytest.raises(InvalidRequest, match="beam_size differs"):
        shared_options([rows[0], BatchRow([1], options={"max_tokens": 3})])


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        ([], InvalidRequest),
        ([10], InvalidRequest),
        ([-1], InvalidRequest),
        ([1] * 5, RequestTooLarge),
    ],
)
def test_tokens_that_do_not_fit_are_refused(ids, error):
    with pytest.raises(error) as refusal:
        check_ids(ids, 10, 4, "token_ids")
    assert refusal.value.field == "token_ids"
    check_ids([0, 9, 9, 0], 10, 4, "token_ids")


@pytest.mark.parametrize("tensor", [np.zeros((1, 2), np.int64), np.zeros(2, np.float32)])
def test_a_tensor_that_holds_no_tokens_is_refused(tensor):
    with pytest.raises(InvalidRequest, match=r"target must be int64 \[n\]"):
        read_ids(BatchRow([1], tensors={"target": tensor}), "target")


def test_tokens_of_a_tensor_are_plain_numbers():
    assert read_ids(BatchRow([1], tensors={"target": np.array([3, 4], np.int32)}), "target") == [
        3, 4,
    ]  # fmt: skip
    assert read_ids(BatchRow([1]), "target") == []


def test_a_task_or_an_option_that_is_not_there_is_refused_by_name():
    with pytest.raises(InvalidRequest, match="does not paint; it does embed, score"):
        check_task("paint", {"score", "embed"})
    check_known_options(BatchRow([1], options={"task": "x", "pooling": None}), "pooling")
    with pytest.raises(InvalidRequest, match="unknown option 'size'; known are pooling"):
        check_known_options(BatchRow([1], options={"size": 1}), "pooling")


def test_a_buffer_must_be_what_the_answer_is():
    shapes = {"embedding": (3,)}
    check_outputs(BatchRow([1], outputs={"embedding": np.zeros(3, np.float32)}), shapes)
    frozen = np.zeros(3, np.float32)
    frozen.flags.writeable = False
    for name, buffer in (
        ("logits", np.zeros(3, np.float32)),
        ("embedding", np.zeros(4, np.float32)),
        ("embedding", np.zeros(3, np.float64)),
        ("embedding", frozen),
    ):
        with pytest.raises(InvalidRequest) as refusal:
            check_outputs(BatchRow([1], outputs={name: buffer}), shapes)
        assert refusal.value.field == f"outputs.{name}"
