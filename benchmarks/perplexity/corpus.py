"""The evaluation text: prose, dialogue, code, tables, letters and twelve languages.

Written for this purpose, so that no model has seen it and no licence binds it. Changing a word
changes every perplexity, so results carry the text's digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

__all__ = ["corpus_digest", "windows"]

_TEXTS = sorted((Path(__file__).parent / "text").glob("*.txt"))


def windows(encode: Callable[[str], list[int]], length: int) -> list[list[int]]:
    """Cut the tokens of each text into windows of at most `length`, at least two tokens long."""
    cut = []
    for path in _TEXTS:
        ids = encode(path.read_text(encoding="utf-8"))
        cut += [ids[begin : begin + length] for begin in range(0, len(ids), length)]
    return [window for window in cut if len(window) > 1]


def corpus_digest() -> str:
    """Return the SHA-256 of all texts, in the order in which they are read."""
    digest = hashlib.sha256()
    for path in _TEXTS:
        digest.update(path.read_bytes())
    return digest.hexdigest()
