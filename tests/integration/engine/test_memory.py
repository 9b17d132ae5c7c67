"""What the real model takes in memory, seen from outside in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from leptond.backend import SessionOptions
from leptond_onnxruntime.importer import Precision
from leptond_onnxruntime.plugin import backend

OPTIONS = SessionOptions(num_slots=16, max_tokens=2048)

SCRIPT = Path(__file__).with_name("take_memory.py")


@pytest.fixture
def measure(find_variant, report):
    """Bytes of a process that loads a model and answers 700, 1024 and then `more` tokens."""

    def measured(precision, *more):
        source = find_variant(precision)
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(source.directory), precision, *map(str, more)],
            check=True,
            stdout=subprocess.PIPE,
        )
        seen = json.loads(done.stdout)
        estimate = backend.estimate_bytes(source, OPTIONS)
        in_mib = {name: f"{size / 2**20:.0f}" for name, size in seen.items()}
        report(f"{precision}: {in_mib} MiB, estimate {estimate.weights_bytes / 2**20:.0f}")
        return seen, estimate

    return measured


@pytest.mark.timeout(300)
@pytest.mark.parametrize("precision", list(Precision))
def test_an_estimate_is_near_the_truth(measure, precision):
    seen, estimate = measure(precision)
    assert 0.85 < seen["ran"] / estimate.weights_bytes < 1.05
    # 1024 of 2048 tokens, in pages per head.
    assert seen["kv"] == pytest.approx(estimate.slot_bytes / 2, rel=0.02)


@pytest.mark.timeout(300)
def test_a_longer_prompt_takes_no_more_and_a_closed_slot_nothing(measure):
    seen, _ = measure(Precision.INT8, 1900)
    assert seen["closed"] < seen["ran"] + 2**20
    assert seen["ran_longer"] < seen["ran"] + 2**23
