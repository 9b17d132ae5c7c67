"""The engine under the scheduler of whole calls, on its thread: what a daemon does with it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from leptond.backend import BatchRow, SessionOptions
from leptond.errors import UnsupportedCapability
from leptond.scheduler import (
    BatchAnswer,
    BatchItem,
    BatchRequest,
    BatchScheduler,
    BatchSummary,
    ComputeBudget,
    SchedulerOptions,
)
from leptond.streaming import QueueSink
from leptond.types import (
    FinishReason,
    GenerationRequest,
    GenerationSummary,
    SamplingParams,
    StopConditions,
    TokenChunk,
)
from tests.fixtures.tiny_models.goldens import golden_rows
from tests.integration.leptond_ctranslate2.conftest import ask

GREEDY = SamplingParams(temperature=0)
_serials = itertools.count()


@pytest.fixture
def schedule(load):
    """A started scheduler of a tiny model, stopped after the test."""
    started = []

    def start(name):
        model = load(name)
        scheduler = BatchScheduler(
            name,
            model,
            SessionOptions(16, model.capabilities.max_context_tokens),
            None,
            SchedulerOptions(),
            compute=ComputeBudget(2),
            flush=lambda: None,
        )
        scheduler.start()
        started.append(scheduler)
        return scheduler

    yield start
    for scheduler in started:
        assert scheduler.stop(10)


def generate(scheduler, prompt, sampling=GREEDY, num_top_logprobs=None, **stop):
    """Submit a text to generate; returns its sink."""
    sink: QueueSink[TokenChunk, GenerationSummary] = QueueSink()
    request = GenerationRequest(
        id=f"r{next(_serials)}",
        prompt_ids=tuple(prompt),
        sampling=sampling,
        stop=StopConditions(**{"max_tokens": 8, **stop}),
        num_top_logprobs=num_top_logprobs,
    )
    scheduler.submit_generation(request, sink)
    return sink


def read(sink):
    return [token for chunk in sink for token in chunk.token_ids]


@pytest.mark.parametrize("name", ["llama", "t5-relu", "nllb"])
def test_texts_of_many_callers_are_what_each_would_be_alone(schedule, open_session, name):
    scheduler, session = schedule(name), open_session(name)
    rows = [row for row in golden_rows(name) if len(row["token_ids"]) > 1]
    sinks = [generate(scheduler, row["token_ids"]) for row in rows * 3]
    for row, sink in zip(rows * 3, sinks, strict=True):
        alone = BatchRow(row["token_ids"], options={"max_tokens": 8, "stop_token_ids": ()})
        assert read(sink) == ask(session, [alone])[0].token_ids
        assert sink.final.finish_reason is FinishReason.LENGTH


def test_a_stop_token_ends_a_text(schedule):
    scheduler = schedule("llama")
    whole = read(generate(scheduler, [5, 6, 7]))
    sink = generate(scheduler, [5, 6, 7], stop_token_ids=frozenset({whole[2]}))
    assert read(sink) == whole[: whole.index(whole[2]) + 1]
    assert sink.final.matched_stop == whole[2]


@pytest.mark.parametrize(
    ("sampling", "option"),
    [
        (SamplingParams(seed=5), "seed"),
        (SamplingParams(min_p=0.1), "min_p"),
        (SamplingParams(temperature=0, repetition_penalty=1.2), "repetition_penalty"),
        (SamplingParams(temperature=0, logit_bias={3: 1.0}), "logit_bias"),
    ],
)
def test_an_option_that_the_engine_does_not_honour_is_refused_by_name(schedule, sampling, option):
    with pytest.raises(UnsupportedCapability) as refusal:
        generate(schedule("llama"), [5, 6], sampling)
    assert refusal.value.field == option


def test_options_that_it_honours_reach_it(schedule):
    scheduler = schedule("llama")
    best = read(generate(scheduler, [5, 6]))
    narrow = SamplingParams(temperature=0.7, top_k=1, top_p=0.5)
    assert read(generate(scheduler, [5, 6], narrow)) == best
    late = generate(scheduler, [5, 6], stop_token_ids=frozenset({best[0]}), min_tokens=3)
    assert best[0] not in read(late)[:3]


def test_embeddings_of_many_callers_are_what_each_would_be_alone(schedule, open_session):
    scheduler, session = schedule("embedder"), open_session("embedder")
    rows = [
        BatchRow(
            row["token_ids"],
            tensors={"token_type_ids": np.array(row["token_type_ids"])},
            options={"task": "embed"},
        )
        for row in golden_rows("embedder")
    ]
    items = tuple(BatchItem(row, len(row.token_ids)) for row in rows)
    sinks: list[QueueSink[BatchAnswer, BatchSummary]] = []
    for serial in range(4):
        sinks.append(QueueSink())
        scheduler.submit(BatchRequest(id=f"e{serial}", items=items), sinks[-1])
    expected = ask(session, rows)
    for sink in sinks:
        found = {answer.index: answer.chunk.tensors["embedding"] for answer in sink}
        for index, alone in enumerate(expected):
            np.testing.assert_allclose(found[index], alone.tensors["embedding"], atol=1e-5)
