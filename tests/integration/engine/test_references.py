"""The engine on the real model against its reference: transformers, float32, greedy."""

from __future__ import annotations

import numpy as np
import pytest

from leptond.backend import SessionOptions, StepRow
from leptond_onnxruntime.importer import Precision
from tests.integration.engine.greedy import CASES, COMPLETIONS, Text, is_decided

NUM_DECIDED = 356
"""Positions of the reference's completions with a clear winner."""


@pytest.fixture
def open_session(load_model):
    """A session of the model in a precision, shut down after the test."""
    sessions = []

    def opened(precision):
        session = load_model(precision).open_session(SessionOptions(len(CASES), 256))
        sessions.append(session)
        return session

    yield opened
    for session in sessions:
        session.shutdown()


def decode_side_by_side(session, num_tokens):
    """All cases at once, free-running."""
    texts = [Text(case["prompt_ids"]) for case in CASES]
    rows = [StepRow(session.open(), text.prompt) for text in texts]
    for _ in range(num_tokens):
        result = session.step(rows)
        rows = [
            StepRow(row.slot, [text.take(result, line)])
            for line, (row, text) in enumerate(zip(rows, texts, strict=True))
        ]
    return texts


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.FLOAT16])
def test_along_the_reference_every_decided_token_is_the_same(open_session, report, precision):
    session = open_session(precision)
    rows = [
        StepRow(
            session.open(),
            case["prompt_ids"] + case["greedy_ids"][:-1],
            num_logits=len(case["greedy_ids"]),
        )
        for case in COMPLETIONS
    ]
    best = session.step(rows).candidate_ids[:, 0]
    decided = np.concatenate([is_decided(case) for case in COMPLETIONS])
    greedy = np.concatenate([case["greedy_ids"] for case in COMPLETIONS])
    num_wrong = int(np.sum(decided & (best != greedy)))
    report(f"{precision}, teacher-forced: {num_wrong} wrong of {decided.sum()}")
    assert decided.sum() == NUM_DECIDED
    assert num_wrong == 0


def test_token_by_token_along_the_reference_every_decided_token_is_the_same(open_session, report):
    session = open_session(Precision.FLOAT32)
    slots = [session.open() for _ in COMPLETIONS]
    longest = max(len(case["greedy_ids"]) for case in COMPLETIONS)
    num_compared = num_wrong = 0
    for position in range(longest):
        running = [
            (slot, case)
            for slot, case in zip(slots, COMPLETIONS, strict=True)
            if position < len(case["greedy_ids"])
        ]
        rows = [
            StepRow(slot, [case["greedy_ids"][position - 1]] if position else case["prompt_ids"])
            for slot, case in running
        ]
        best = session.step(rows).candidate_ids[:, 0]
        for token, (_, case) in zip(best, running, strict=True):
            if is_decided(case)[position]:
                num_compared += 1
                num_wrong += int(token != case["greedy_ids"][position])
    report(f"float32, token by token: {num_wrong} wrong of {num_compared}")
    assert num_compared == NUM_DECIDED
    assert num_wrong == 0


def test_a_free_running_text_is_the_reference_up_to_its_first_close_call(open_session, report):
    session = open_session(Precision.FLOAT32)
    longest = max(len(case["greedy_ids"]) for case in CASES)
    texts = decode_side_by_side(session, longest)
    num_compared = 0
    for text, case in zip(texts, CASES, strict=True):
        decided = is_decided(case)
        num_sure = len(decided) if decided.all() else int(np.argmin(decided))
        assert text.chosen[:num_sure] == case["greedy_ids"][:num_sure], case.get("prompt")
        num_compared += num_sure
    report(f"float32, free-running: {num_compared} tokens equal in {len(CASES)} texts")


def test_log_probabilities_of_the_first_token(open_session, report):
    session = open_session(Precision.FLOAT32)
    rows = [StepRow(session.open(), case["prompt_ids"]) for case in CASES]
    result = session.step(rows)
    worst = 0.0
    for line, case in enumerate(CASES):
        log_probabilities = result.logits[line] - result.raw_log_normalizer[line]
        for token_id, expected in case["first_top5"]:
            worst = max(worst, abs(float(log_probabilities[token_id]) - expected))
    report(f"float32: {5 * len(CASES)} log-probabilities, largest difference {worst:.5f}")
    assert worst < 0.01


def test_8_bit_weights_choose_mostly_the_same_first_tokens(open_session, report):
    texts = decode_side_by_side(open_session(Precision.INT8), 8)
    pairs = [
        (ours, theirs)
        for text, case in zip(texts, CASES, strict=True)
        for ours, theirs in zip(text.chosen, case["greedy_ids"], strict=False)
    ]
    num_equal = sum(ours == theirs for ours, theirs in pairs)
    report(f"int8, free-running: {num_equal} of {len(pairs)} first tokens equal")
    assert num_equal >= 0.8 * len(pairs)
