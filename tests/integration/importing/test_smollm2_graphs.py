"""The graphs of the real model against its reference: transformers, float32, greedy."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from leptond_onnxruntime.importer import Precision
from tests.fixtures.graph_runner import GraphRunner
from tests.fixtures.smollm2 import smollm2_reference

REFERENCE = smollm2_reference()
CASES = REFERENCE["completions"] + REFERENCE["chats"]
# Two logits closer than this may swap places by rounding alone.
MIN_MARGIN = 0.02


@pytest.fixture
def report(capsys):
    """Print a line although the test passes."""

    def printed(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n  {line}")

    return printed


def decided_positions(case: dict[str, Any]) -> np.ndarray:
    return np.array(case["top1_top2_margin"]) >= MIN_MARGIN


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.FLOAT16])
def test_along_the_reference_every_decided_token_is_the_same(smollm2_graphs, report, precision):
    runner = GraphRunner(smollm2_graphs(precision), num_slots=1)
    num_compared = num_completions = num_wrong = 0
    for case in CASES:
        prompt, greedy = case["prompt_ids"], np.array(case["greedy_ids"])
        ids = prompt + case["greedy_ids"][:-1]
        best = runner.step([ids], [0]).candidate_ids[len(prompt) - 1 :, 0]
        decided = decided_positions(case)
        num_wrong += int(np.sum(decided & (best != greedy)))
        num_compared += int(decided.sum())
        num_completions += int(decided.sum()) if case in REFERENCE["completions"] else 0
    report(f"{precision}: {num_wrong} wrong of {num_compared} ({num_completions} in completions)")
    assert num_completions == 356
    assert num_wrong == 0


def test_token_by_token_and_side_by_side_every_decided_token_is_the_same(smollm2_graphs, report):
    runner = GraphRunner(smollm2_graphs(Precision.FLOAT32), num_slots=len(CASES))
    rows = [case["prompt_ids"] for case in CASES]
    lengths = [0] * len(CASES)
    num_compared = num_wrong = 0
    for position in range(max(len(case["greedy_ids"]) for case in CASES)):
        answers = runner.step(rows, lengths)
        last = np.cumsum([len(row) for row in rows]) - 1
        for slot, case in enumerate(CASES):
            lengths[slot] += len(rows[slot])
            greedy, decided = case["greedy_ids"], decided_positions(case)
            if rows[slot] and decided[position]:
                num_compared += 1
                num_wrong += int(answers.candidate_ids[last[slot], 0] != greedy[position])
            rows[slot] = greedy[position : position + 1] if position + 1 < len(greedy) else []
    report(f"float32, {len(CASES)} rows: {num_wrong} wrong of {num_compared}")
    assert num_compared == sum(int(decided_positions(case).sum()) for case in CASES)
    assert num_wrong == 0


def test_log_probabilities_of_the_first_token(smollm2_graphs, report):
    runner = GraphRunner(smollm2_graphs(Precision.FLOAT32), num_slots=1)
    worst = 0.0
    for case in CASES:
        answers = runner.step([case["prompt_ids"]], [0])
        log_probabilities = answers.logits[-1] - answers.raw_log_normalizer[-1]
        for token_id, expected in case["first_top5"]:
            worst = max(worst, abs(float(log_probabilities[token_id]) - expected))
    report(f"float32: {5 * len(CASES)} log-probabilities, largest difference {worst:.5f}")
    assert worst < 0.01


def test_8_bit_weights_choose_mostly_the_same_first_tokens(smollm2_graphs, report):
    runner = GraphRunner(smollm2_graphs(Precision.INT8), num_slots=len(CASES))
    rows = [case["prompt_ids"] for case in CASES]
    lengths = [0] * len(CASES)
    chosen: list[list[int]] = [[] for _ in CASES]
    for _ in range(8):
        answers = runner.step(rows, lengths)
        last = np.cumsum([len(row) for row in rows]) - 1
        for slot, token_id in enumerate(answers.candidate_ids[last, 0].tolist()):
            lengths[slot] += len(rows[slot])
            chosen[slot].append(token_id)
            rows[slot] = [token_id]
    pairs = [
        (ours, theirs)
        for ids, case in zip(chosen, CASES, strict=True)
        for ours, theirs in zip(ids, case["greedy_ids"], strict=False)
    ]
    num_equal = sum(ours == theirs for ours, theirs in pairs)
    report(f"int8, free-running: {num_equal} of {len(pairs)} first tokens equal")
    assert num_equal >= 0.8 * len(pairs)
