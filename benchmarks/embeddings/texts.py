"""The inputs: 64 texts of mixed length, cut from the evaluation text."""

from __future__ import annotations

import random
from pathlib import Path

__all__ = ["NUM_TEXTS", "mixed_texts"]

NUM_TEXTS = 64
_SOURCE = Path(__file__).parent.parent / "perplexity" / "text"
_MAX_WORDS = 120


def mixed_texts(count: int = NUM_TEXTS) -> list[str]:
    """Return texts of 3 to 120 words, short ones more often; the same ones every time."""
    words = " ".join(
        file.read_text(encoding="utf-8") for file in sorted(_SOURCE.glob("*.txt"))
    ).split()
    chance = random.Random(7)
    texts = []
    for _ in range(count):
        num_words = min(3 + int(chance.expovariate(1 / 30)), _MAX_WORDS)
        first = chance.randrange(len(words) - num_words)
        texts.append(" ".join(words[first : first + num_words]))
    return texts
