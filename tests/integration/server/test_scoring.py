"""Score on both engines, against transformers and against what Generate says of its own tokens."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from leptond.backend.fake import FakeOptions
from leptond.v1 import (
    chat_pb2,
    common_pb2,
    generation_pb2,
    message_pb2,
    sampling_pb2,
    scoring_pb2,
    text_generation_service_pb2_grpc,
)
from tests.fixtures.tiny_models.goldens import golden_rows
from tests.fixtures.tiny_store import tiny_store

pytestmark = [pytest.mark.asyncio, pytest.mark.needs("import", "ctranslate2")]

BACKENDS = [
    "ctranslate2",
    pytest.param("onnxruntime", marks=pytest.mark.needs("onnxruntime")),
]


def stub_of(served):
    return text_generation_service_pb2_grpc.TextGenerationServiceStub(served.channel())


def ids(values):
    return common_pb2.TokenIds(ids=values)


def prompt_ids(values):
    return generation_pb2.GenerationInput(token_ids=ids(values))


def score(*inputs, model="llama", **options):
    return scoring_pb2.ScoreRequest(model=model, inputs=inputs, **options)


def given(context=None, target=None, **kind):
    """A text to score, by token ids where lists are given."""
    if isinstance(target, str):
        kind["text"] = target
    elif target is not None:
        kind["token_ids"] = ids(target)
    if isinstance(context, str):
        kind["prompt"] = generation_pb2.GenerationInput(text=context)
    elif context is not None:
        kind["prompt"] = prompt_ids(context)
    return scoring_pb2.ScoreInput(**kind)


async def refusal(answer):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    return caught.value


@pytest.mark.parametrize("backend", BACKENDS)
async def test_log_probabilities_equal_those_of_the_reference(start, backend):
    rows = [row for row in golden_rows("llama") if len(row["token_ids"]) > 1]
    inputs = [given(row["token_ids"][:1], row["token_ids"][1:]) for row in rows]
    async with start(store=tiny_store("llama", backend=backend)) as served:
        answer = await stub_of(served).Score(score(*inputs))
    for row, result in zip(rows, answer.results, strict=True):
        np.testing.assert_allclose(result.tokens.logprobs, row["token_logprobs"], atol=2e-3)
        assert list(result.tokens.token_ids) == row["token_ids"][1:]
        assert result.num_tokens == len(row["token_ids"]) - 1
        assert result.logprob == pytest.approx(sum(result.tokens.logprobs), rel=1e-5)
    assert answer.info.usage.prompt_tokens == sum(len(row["token_ids"]) for row in rows)


@pytest.mark.parametrize("name", ["marian", "t5-gated"])
async def test_an_encoder_reads_the_prompt_of_a_translator(start, name):
    rows = golden_rows(name)
    inputs = [given(row["token_ids"], row["beam"][0]["token_ids"]) for row in rows]
    async with start(store=tiny_store(name)) as served:
        answer = await stub_of(served).Score(score(*inputs, model=name))
        refused = await refusal(stub_of(served).Score(score(given(None, [3, 4]), model=name)))
    for row, result in zip(rows, answer.results, strict=True):
        np.testing.assert_allclose(result.tokens.logprobs, row["target_logprobs"], atol=5e-3)
    assert "no prompt for the encoder" in refused.details()


@pytest.mark.needs("onnxruntime")
async def test_a_text_scores_what_it_was_generated_with(start, default_chat_store):
    name = default_chat_store.variant("float32")
    async with start(store=default_chat_store.directory) as served:
        stub = stub_of(served)
        written = await stub.Generate(
            generation_pb2.GenerateRequest(
                model=name,
                input=generation_pb2.GenerationInput(text="The capital of France is"),
                sampling=sampling_pb2.SamplingParams(temperature=0, max_tokens=24),
                output=generation_pb2.OutputOptions(logprobs=3, prompt_token_ids=True),
            ),
            timeout=60,
        )
        choice = written.choices[0]
        context = list(written.prompt.token_ids)
        asked = score(given(context, list(choice.token_ids)), model=name, top_logprobs=3)
        answer = await stub.Score(asked, timeout=60)
    (result,) = answer.results
    np.testing.assert_allclose(result.tokens.logprobs, choice.logprobs.logprobs, atol=2e-3)
    for mine, theirs in zip(result.tokens.top, choice.logprobs.top, strict=True):
        np.testing.assert_allclose(mine.logprobs, theirs.logprobs, atol=2e-3)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_text_and_chat_and_no_context(start, backend):
    message = message_pb2.Message(
        role=message_pb2.ROLE_USER, content=[message_pb2.ContentPart(text="hello")]
    )
    chat = chat_pb2.ChatInput(messages=[message])
    async with start(store=tiny_store("llama", backend=backend)) as served:
        stub = stub_of(served)
        answer = await stub.Score(
            score(
                given("the man", " is eating"),
                given(target="the man is eating"),
                given(target=" is", chat=chat),
                omit_token_logprobs=True,
            )
        )
    assert all(result.logprob < 0 and result.num_tokens for result in answer.results)
    assert not any(result.HasField("tokens") for result in answer.results)


async def test_hundreds_of_texts_are_scored_beside_others(start):
    inputs = [given([1, 2, 3 + number % 100], [5, 6, 7]) for number in range(300)]
    async with start({"toy": FakeOptions(slots=4)}) as served:
        stub = stub_of(served)
        answer = await stub.Score(score(*inputs, model="toy"), timeout=60)
        many = [given([1], [5] * 130)] * 100
        refused = await refusal(stub.Score(score(*many, model="toy", top_logprobs=20)))
        again = await stub.Score(score(inputs[7], model="toy"))
        load = served.model("toy").scheduler.load()
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "more than 262144 log-probabilities" in refused.details()
    assert len(answer.results) == 300
    assert answer.results[7].logprob == pytest.approx(again.results[0].logprob, abs=1e-5)
    assert load.num_running == load.num_queued == 0


@pytest.mark.parametrize(
    ("wire", "code", "message"),
    [
        (score(), "INVALID_ARGUMENT", "inputs is empty"),
        (score(given("a")), "INVALID_ARGUMENT", "inputs[0] has no target"),
        (score(given("a", "")), "INVALID_ARGUMENT", "inputs[0].text has no tokens"),
        (score(given("a", "b"), given("", "b")), "INVALID_ARGUMENT", "inputs[1].prompt"),
        (score(given("a", [1 << 20])), "INVALID_ARGUMENT", "inputs[0].token_ids.ids"),
        (score(given([5] * 200, [5] * 100)), "INVALID_ARGUMENT", "inputs[0]"),
        (score(given("a", "b"), top_logprobs=21), "INVALID_ARGUMENT", "at most 20"),
        (score(given("a", "b"), top_logprobs=2), "UNIMPLEMENTED", "gives no alternatives"),
        (score(given("a", "b"), model="embedder"), "UNIMPLEMENTED", "does not score or generate"),
    ],
)
async def test_what_cannot_be_scored_is_refused_by_name(start, wire, code, message):
    async with start(store=tiny_store("llama", "embedder")) as served:
        stub = stub_of(served)
        refused = await refusal(stub.Score(wire))
        assert len((await stub.Score(score(given("a", "b")))).results) == 1
    assert (refused.code().name, message in refused.details()) == (code, True), refused.details()
