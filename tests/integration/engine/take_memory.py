"""Loads a model, answers prompts, and prints as JSON what the process took at each point.

Started by `test_memory.py`: DIRECTORY PRECISION [LENGTH...].
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from leptond.backend import ModelSource, SessionOptions, StepRow
from leptond_onnxruntime.model import OnnxModel


def anonymous_bytes() -> int:
    """Resident memory of this process that is no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not tell RssAnon")


def take(directory: Path, precision: str, more: list[int]) -> dict[str, int]:
    """Bytes taken by what was loaded and run; KV apart."""
    before = anonymous_bytes()
    model = OnnxModel.load(ModelSource(directory, precision), lambda stage, share: None)
    session = model.open_session(SessionOptions(num_slots=16, max_tokens=2048))
    seen = {"loaded": anonymous_bytes() - before}

    def run(length: int, what: str) -> None:
        slot = session.open()
        session.step([StepRow(slot, [5 + k % 4000 for k in range(length)], num_logits=64)])
        seen["kv"] = session.resident_bytes()
        seen[what] = anonymous_bytes() - before - seen["kv"]
        session.close(slot)

    for length in (700, 1024):
        run(length, "ran")
    seen["closed"] = anonymous_bytes() - before
    for length in more:
        run(length, "ran_longer")
    return seen


if __name__ == "__main__":
    facts = take(Path(sys.argv[1]), sys.argv[2], list(map(int, sys.argv[3:])))
    sys.stdout.write(json.dumps(facts))
