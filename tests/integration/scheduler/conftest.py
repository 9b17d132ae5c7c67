"""Schedulers with their real threads on the fake engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from leptond.backend import SessionOptions
from leptond.backend.fake import FakeModel, FakeOptions
from leptond.errors import LeptondError
from leptond.scheduler import ComputeBudget, SchedulerOptions, StepScheduler
from leptond.streaming import QueueSink
from leptond.types import (
    GenerationRequest,
    GenerationSummary,
    SamplingParams,
    StopConditions,
    TokenChunk,
)

Sink = QueueSink[TokenChunk, GenerationSummary]
PATIENCE_S = 20.0

_serials = itertools.count()


def request(
    prompt: int | Sequence[int] = 4,
    max_tokens: int = 4,
    *,
    deadline: float | None = None,
    priority: int = 0,
) -> GenerationRequest:
    serial = next(_serials)
    if isinstance(prompt, int):
        prompt = [(serial * 31 + i) % 250 for i in range(prompt)]
    return GenerationRequest(
        id=f"r{serial}",
        prompt_ids=tuple(prompt),
        sampling=SamplingParams(temperature=0.0),
        stop=StopConditions(max_tokens),
        deadline=deadline,
        priority=priority,
    )


def submit(scheduler: StepScheduler, one: GenerationRequest, *, max_buffered: int = 0) -> Sink:
    sink: Sink = QueueSink(max_buffered)
    scheduler.submit(one, sink)
    return sink


def token_ids(sink: Sink) -> list[int]:
    """Read the answer to its end."""
    return [token_id for chunk in sink for token_id in chunk.token_ids]


def failure(sink: Sink) -> LeptondError:
    """Read the answer to its error."""
    with pytest.raises(LeptondError) as caught:
        token_ids(sink)
    return caught.value


StartScheduler = Callable[..., StepScheduler]


@pytest.fixture
def start() -> Iterator[StartScheduler]:
    """Start schedulers; each is stopped, its session and its model closed, after the test."""
    started: list[tuple[StepScheduler, FakeModel]] = []

    def start_one(
        fake: FakeOptions | None = None,
        options: SchedulerOptions | None = None,
        *,
        model: FakeModel | None = None,
        compute: ComputeBudget | None = None,
        name: str = "fake",
        **callbacks: Any,
    ) -> StepScheduler:
        fake = fake or FakeOptions(slots=4, context=2048, mean_sentences=0)
        model = model or FakeModel(fake)
        scheduler = StepScheduler(
            name,
            model,
            SessionOptions(fake.slots, fake.context),
            None,
            options or SchedulerOptions(),
            compute=compute or ComputeBudget(2),
            **{"flush": lambda: None, **callbacks},
        )
        started.append((scheduler, model))
        scheduler.start()
        return scheduler

    yield start_one
    for scheduler, model in started:
        assert scheduler.stop(PATIENCE_S)
        model.close()
