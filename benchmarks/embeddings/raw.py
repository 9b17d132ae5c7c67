"""The library by itself: CTranslate2's encoder in this process, called in the best of several ways.

`python -m benchmarks.embeddings.raw VARIANT` prints one JSON line. Every way embeds the same texts,
sorted by length and cut into calls of 8 to 64; the hidden states are pooled in numpy. Counted
twice: from tokens that lie ready, and from text.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import click
import ctranslate2
import numpy as np
from tokenizers import Tokenizer

from benchmarks.embeddings.texts import mixed_texts

__all__ = ["main"]

_SIZES = (8, 16, 32, 64)


def _fastest(ways: Mapping[int, Callable[[], object]], seconds: float) -> tuple[int, float]:
    """Name the fastest way and how often it went through per second, taking turns."""
    for way in ways.values():
        way()
    spent = dict.fromkeys(ways, 0.0)
    num_rounds = 0
    until = time.monotonic() + seconds * len(ways)
    while time.monotonic() < until or num_rounds < 3:
        num_rounds += 1
        for size, way in ways.items():
            began = time.perf_counter()
            way()
            spent[size] += time.perf_counter() - began
    best = min(spent, key=lambda size: spent[size])
    return best, num_rounds / spent[best]


@click.command
@click.argument("variant", type=click.Path(path_type=Path, exists=True))
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--seconds", type=float, default=3.0, show_default=True)
def main(variant: Path, threads: int, seconds: float) -> None:
    """Measure the variant of a store in VARIANT."""
    tokenizer = Tokenizer.from_file(str(variant.parent / "tokenizer.json"))
    tokenizer.no_padding()
    defaults = json.loads((variant.parent / "encoder.json").read_text(encoding="utf-8"))
    tokenizer.enable_truncation(defaults["max_tokens"])
    precision = variant.name.partition("-")[0]
    encoder = ctranslate2.Encoder(
        str(variant), compute_type=precision, inter_threads=1, intra_threads=threads
    )
    texts = mixed_texts()

    def tokens() -> list[list[int]]:
        return sorted((one.ids for one in tokenizer.encode_batch_fast(texts)), key=len)

    def embed(rows: list[list[int]], size: int) -> None:
        for first in range(0, len(rows), size):
            part = rows[first : first + size]
            output = encoder.forward_batch(part).last_hidden_state
            hidden = np.array(output)
            lengths = np.array([len(row) for row in part])
            mask = np.arange(hidden.shape[1]) < lengths[:, None]
            (hidden * mask[:, :, None]).sum(axis=1) / lengths[:, None]

    ready = tokens()
    size, per_s = _fastest({n: partial(embed, ready, n) for n in _SIZES}, seconds)

    def embed_texts(size: int) -> None:
        embed(tokens(), size)

    from_text = {n: partial(embed_texts, n) for n in _SIZES}
    whole_size, whole_per_s = _fastest(from_text, seconds)
    print(
        json.dumps(
            {
                "from_tokens": {"batch": size, "texts_per_s": round(per_s * len(texts), 1)},
                "from_text": {
                    "batch": whole_size,
                    "texts_per_s": round(whole_per_s * len(texts), 1),
                },
                "tokens": sum(map(len, ready)),
            }
        )
    )


if __name__ == "__main__":
    main()
