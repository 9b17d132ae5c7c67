"""The default chat model as a decoder of this engine, against its reference."""

from __future__ import annotations

import numpy as np

from leptond.backend import BatchRow
from tests.fixtures.smollm2 import smollm2_reference
from tests.integration.leptond_ctranslate2.conftest import ask

MIN_MARGIN = 0.02
"""Two logits closer than this may swap places by rounding alone."""
REFERENCE = smollm2_reference()
CASES = [*REFERENCE["completions"], *REFERENCE["chats"]]


def until_first_doubt(case):
    """The reference's greedy tokens up to the first that is not decided."""
    doubts = np.flatnonzero(np.array(case["top1_top2_margin"]) < MIN_MARGIN)
    return case["greedy_ids"][: doubts[0] if doubts.size else None]


def test_greedy_tokens_are_those_of_the_reference_alone_and_side_by_side(open_session):
    session = open_session("smollm2", max_tokens=256)
    expected = [until_first_doubt(case)[:12] for case in CASES]
    rows = [BatchRow(case["prompt_ids"], options={"max_tokens": 12}) for case in CASES]
    assert sum(map(len, expected)) > 100
    together = ask(session, rows)
    for index, tokens in enumerate(expected):
        assert together[index].token_ids[: len(tokens)] == tokens
    for index in (0, len(CASES) - 1):
        alone = ask(session, [rows[index]])[0]
        assert alone.token_ids[: len(expected[index])] == expected[index]


def test_logprobs_along_the_reference_are_those_of_a_decided_choice(open_session):
    session = open_session("smollm2", max_tokens=256)
    case = REFERENCE["completions"][0]
    text = [*case["prompt_ids"], *case["greedy_ids"]]
    (answer,) = ask(session, [BatchRow(text, options={"task": "score"})])
    logprobs = answer.tensors["token_logprobs"][-len(case["greedy_ids"]) :]
    margins = np.array(case["top1_top2_margin"])
    # The runner-up is less likely by the margin, and both together are no more than certain.
    assert (logprobs <= 0).all()
    decided = margins > 1
    assert (np.exp(logprobs[decided]) * (1 + np.exp(-margins[decided])) <= 1 + 1e-4).all()


def test_int8_keeps_most_of_the_reference(open_session):
    session = open_session("smollm2", "int8", max_tokens=256)
    rows = [BatchRow(case["prompt_ids"], options={"max_tokens": 1}) for case in CASES]
    same = [
        answer.token_ids == case["greedy_ids"][:1]
        for case, answer in zip(CASES, ask(session, rows), strict=True)
    ]
    assert sum(same) >= 0.7 * len(same)
