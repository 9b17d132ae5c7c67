"""What is measured of one variant: prompts alone and side by side, decoding at three widths."""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.engine.timed import PartTimes, timed
from leptond.backend import RowPick, SessionOptions, StepRow
from leptond_onnxruntime.device import find_device
from leptond_onnxruntime.graphs import Graph
from leptond_onnxruntime.importer.graph_io import BODY_FILE, HEAD_FILE, GraphSpec
from leptond_onnxruntime.model import OnnxModel
from leptond_onnxruntime.options import EngineOptions

__all__ = ["NUM_SLOTS", "Variant", "Workload"]

NUM_SLOTS = 16
PROMPT_TOKENS = 130
WIDTHS = (1, 4, NUM_SLOTS)


@dataclass(frozen=True, slots=True)
class Variant:
    """Graphs, and how they are run."""

    directory: Path
    options: EngineOptions

    @property
    def name(self) -> str:
        """For the table."""
        return (
            f"{self.directory.name} threads={self.options.actual_threads} "
            f"spin={self.options.spin_us}"
        )


class Workload:
    """One loaded variant with a session of 16 slots, and the samples taken so far."""

    def __init__(self, variant: Variant, num_steps: int) -> None:
        before = _anonymous_bytes()
        self.variant = variant
        self.samples: dict[str, list[float]] = defaultdict(list)
        self._num_steps = num_steps
        self._times = PartTimes()
        device = find_device("cpu")
        self._spec = GraphSpec.read(variant.directory)
        body, head = (
            Graph.open(variant.directory / file, device, variant.options)
            for file in (BODY_FILE, HEAD_FILE)
        )
        self._model = OnnxModel(
            self._spec,
            timed(body, "body", self._times),
            timed(head, "head", self._times),
            device,
        )
        self.loaded_bytes = _anonymous_bytes() - before
        self._session = self._model.open_session(
            SessionOptions(NUM_SLOTS, PROMPT_TOKENS + 4 * num_steps)
        )
        self._dice = random.Random(0)
        self._slots: list[int] = []
        self.run_round()  # warms up; not counted
        self.samples.clear()
        self.running_bytes = _anonymous_bytes() - before - self._session.resident_bytes()

    def run_round(self) -> None:
        """Add one sample of everything."""
        self._slots = [self._session.open() for _ in range(NUM_SLOTS)]
        first, *others = self._slots
        seconds = self._prefill([first])
        self.samples["prefill 1, tok/s"].append(PROMPT_TOKENS / seconds)
        self._session.truncate(first, 0)
        seconds = self._prefill([first, *others])
        self.samples["prefill 16, tok/s"].append(NUM_SLOTS * PROMPT_TOKENS / seconds)
        for width in WIDTHS:
            self._decode(width)
        self._decode(NUM_SLOTS, self._picks())
        for slot in self._slots:
            self._session.close(slot)

    def close(self) -> None:
        """Free everything."""
        self._session.shutdown()
        self._model.close()

    def _prefill(self, slots: list[int]) -> float:
        """Answer the last position of a random prompt per slot; seconds."""
        rows = [StepRow(slot, self._tokens(PROMPT_TOKENS)) for slot in slots]
        start = time.perf_counter()
        self._session.step(rows)
        return time.perf_counter() - start

    def _decode(self, width: int, picks: list[RowPick | None] | None = None) -> None:
        """One token per step and row; medians of the parts of a step."""
        parts: dict[str, list[float]] = defaultdict(list)
        for _ in range(self._num_steps):
            rows = [
                StepRow(slot, self._tokens(1), pick=picks[index] if picks else None)
                for index, slot in enumerate(self._slots[:width])
            ]
            self._times.take()
            start = time.perf_counter()
            self._session.step(rows)
            total = time.perf_counter() - start
            seconds = self._times.take()
            for part, value in seconds.items():
                parts[part].append(value)
            parts["arrays"].append(total - sum(seconds.values()))
            parts["step"].append(total)
        name = f"decode {width}{' with picks' if picks else ''}"
        medians = {part: statistics.median(values) for part, values in parts.items()}
        self.samples[f"{name}, tok/s"].append(width / medians["step"])
        for part, value in medians.items():
            self.samples[f"{name}, {part} ms"].append(1000 * value)

    def _tokens(self, count: int) -> list[int]:
        return [self._dice.randrange(self._spec.vocab_size) for _ in range(count)]

    def _picks(self) -> list[RowPick | None]:
        """Each row with a penalty, a bias and a temperature of its own."""
        size = self._spec.vocab_size
        return [
            RowPick(0.5 + row / 10, np.full(size, 1.1, np.float32), np.zeros(size, np.float32))
            for row in range(NUM_SLOTS)
        ]


def _anonymous_bytes() -> int:
    """Resident memory of this process that is no file."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon")
