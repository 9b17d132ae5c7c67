"""Sixteen streams that join and leave at random, against the single run of each.

The tolerances of `int8` and `float16` were measured (docs/adr/0004-engine.md): attention over one
new token uses another kernel than over several, and rounding activations to fewer bits enlarges
that difference. A text is compared up to the first position where the single run's own two best
logits were closer than `MIN_MARGIN`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest

from leptond.backend import SessionOptions, StepRow
from leptond_onnxruntime.importer import Precision
from tests.integration.engine.greedy import CASES, Text, decode_alone

NUM_SLOTS = 16
NUM_NEW_TOKENS = 10
JOIN_CHANCE = 0.6
PAUSE_CHANCE = 0.15
MIN_MARGIN = {Precision.FLOAT32: 0.02, Precision.FLOAT16: 0.05, Precision.INT8: 1.0}
LOGIT_TOLERANCE = {Precision.FLOAT32: 1e-3, Precision.FLOAT16: 0.2, Precision.INT8: 2.5}


@dataclass
class Stream:
    """A text on its way through a slot."""

    expected: Text
    text: Text
    slot: int
    num_fed: int = 0

    def next_row(self, dice: random.Random) -> StepRow:
        """A random part of what is left of the prompt, then the last token chosen."""
        rest = self.text.prompt[self.num_fed :]
        if not rest:
            return StepRow(self.slot, self.text.chosen[-1:])
        chunk = rest[: dice.choice([1, dice.randint(1, 6), dice.randint(1, 70)])]
        self.num_fed += len(chunk)
        return StepRow(self.slot, chunk, num_logits=int(len(chunk) == len(rest)))


def run_at_random(session, singles, dice):
    """All texts through 16 slots, joining, pausing and leaving at random."""
    waiting = list(singles)
    running: list[Stream] = []
    done: list[Stream] = []
    while waiting or running:
        while waiting and len(running) < NUM_SLOTS and dice.random() < JOIN_CHANCE:
            expected = waiting.pop()
            running.append(Stream(expected, Text(expected.prompt), session.open()))
        members = [stream for stream in running if dice.random() >= PAUSE_CHANCE]
        dice.shuffle(members)
        rows = [stream.next_row(dice) for stream in members]
        result = session.step(rows)
        line = 0
        for stream, row in zip(members, rows, strict=True):
            if row.num_logits:
                stream.text.take(result, line)
                line += 1
        for stream in [s for s in running if len(s.text.chosen) == NUM_NEW_TOKENS]:
            running.remove(stream)
            session.close(stream.slot)
            done.append(stream)
    return done


@pytest.mark.timeout(300)
@pytest.mark.parametrize("precision", list(Precision))
def test_streams_that_join_and_leave_at_random_answer_like_the_single_run(
    load_model, report, precision
):
    dice = random.Random(0)
    session = load_model(precision).open_session(SessionOptions(NUM_SLOTS, 256))
    texts = [case["prompt_ids"] for case in CASES]
    joined = [token for text in texts for token in text]
    texts += [joined[start:][: dice.randint(60, 130)] for start in range(0, 100, 25)]
    texts += [text[::-1] for text in texts[:6]]
    singles = [decode_alone(session, text, NUM_NEW_TOKENS) for text in texts]
    streams = run_at_random(session, singles, dice)
    session.shutdown()
    num_compared = 0
    worst = worst_gap = 0.0
    for stream in streams:
        single, text = stream.expected, stream.text
        for position in range(NUM_NEW_TOKENS):
            difference = np.abs(text.logits[position] - single.logits[position]).max()
            worst = max(worst, float(difference))
            if single.margins[position] < MIN_MARGIN[precision]:
                break
            assert text.chosen[position] == single.chosen[position]
            gap = abs(text.margins[position] - single.margins[position])
            worst_gap = max(worst_gap, gap)
            num_compared += 1
    report(
        f"{precision}: {len(singles)} streams in {NUM_SLOTS} slots, {num_compared} tokens equal, "
        f"logits differ by at most {worst:.2g}, margins by {worst_gap:.2g}"
    )
    assert worst <= LOGIT_TOLERANCE[precision]
    assert num_compared >= len(singles), "too few positions were clear enough to say anything"
