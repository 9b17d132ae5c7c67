"""Greedy decoding through a session: what the tests of the real model share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from leptond.backend import StepResult, StepRow, StepSession
from tests.fixtures.smollm2 import smollm2_reference

REFERENCE = smollm2_reference()
COMPLETIONS = REFERENCE["completions"]
CASES = [*COMPLETIONS, *REFERENCE["chats"]]
MIN_MARGIN = 0.02
"""Two logits closer than this may swap places by rounding alone."""


def is_decided(case: dict[str, Any]) -> np.ndarray:
    """Which positions of a reference text have a clear winner."""
    return np.array(case["top1_top2_margin"]) >= MIN_MARGIN


@dataclass
class Text:
    """A prompt, and the tokens that were chosen after it with the logits that chose them."""

    prompt: list[int]
    chosen: list[int] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)

    def take(self, result: StepResult, line: int) -> int:
        """Choose the best token of `line` and remember it."""
        first, second = result.candidate_logits[line, :2]
        self.margins.append(float(first - second))
        self.logits.append(result.logits[line].copy())
        self.chosen.append(int(result.candidate_ids[line, 0]))
        return self.chosen[-1]


def decode_alone(session: StepSession, prompt: list[int], num_tokens: int) -> Text:
    """The single run: the whole prompt in one step, then token by token, nobody beside."""
    text = Text(prompt)
    slot = session.open()
    row = StepRow(slot, prompt)
    for _ in range(num_tokens):
        row = StepRow(slot, [text.take(session.step([row]), 0)])
    session.close(slot)
    return text
