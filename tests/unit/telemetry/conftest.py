from __future__ import annotations

from itertools import pairwise

import pytest

from leptond.telemetry.record import CHAT, InferenceRecord
from leptond.types import Phase, PhaseName, SamplingParams, Usage


@pytest.fixture
def record() -> InferenceRecord:
    """A streamed chat of 5 sampled tokens: 1 s to tokenize, 2 to queue, 3, 4 and 5 for the rest."""
    starts = (10.0, 11.0, 13.0, 16.0, 20.0, 25.0)
    phases = tuple(
        Phase(name, start, end)
        for name, (start, end) in zip(PhaseName, pairwise(starts), strict=True)
    )
    return InferenceRecord(
        operation=CHAT,
        model="tiny",
        phases=phases,
        usage=Usage(prompt_tokens=7, completion_tokens=5, cached_tokens=3),
        finish_reasons=("stop",),
        sampling=SamplingParams(temperature=0.5, top_p=0.9, top_k=40, seed=11),
        max_tokens=64,
        is_stream=True,
    )
