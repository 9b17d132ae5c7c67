"""sentence-transformers on torch, on the CPU; run by the interpreter of its own environment.

`PYTHON benchmarks/embeddings/rival.py MODEL --texts FILE` prints one JSON line: the best batch size
and its texts per second. MODEL is the checkpoint's directory, FILE holds a JSON list. What the
environment needs: `pip install sentence-transformers torch` (a CPU build).
"""

import argparse
import json
import time
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

_SIZES = (8, 16, 32, 64)


def main() -> None:
    """Measure every batch size, taking turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--texts", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    texts = json.loads(Path(given.texts).read_text(encoding="utf-8"))
    model = SentenceTransformer(given.model, device="cpu")
    spent = dict.fromkeys(_SIZES, 0.0)
    num_rounds = 0
    for size in _SIZES:
        model.encode(texts, batch_size=size, show_progress_bar=False)
    until = time.monotonic() + given.seconds * len(_SIZES)
    while time.monotonic() < until or num_rounds < 3:
        num_rounds += 1
        for size in _SIZES:
            began = time.perf_counter()
            model.encode(texts, batch_size=size, show_progress_bar=False)
            spent[size] += time.perf_counter() - began
    best = min(spent, key=lambda size: spent[size])
    speed = round(num_rounds * len(texts) / spent[best], 1)
    print(json.dumps({"batch": best, "texts_per_s": speed, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
