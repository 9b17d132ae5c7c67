"""Generate, chat and tokens on CTranslate2: a decoder and a sequence-to-sequence model."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
import pytest_asyncio

from leptond.v1 import (
    chat_pb2,
    common_pb2,
    generation_pb2,
    message_pb2,
    sampling_pb2,
    tokenization_pb2,
)
from tests.fixtures.calls import details_of
from tests.fixtures.tiny_models.goldens import golden_options, golden_rows
from tests.fixtures.tiny_store import tiny_store

pytestmark = [pytest.mark.asyncio, pytest.mark.needs("import", "ctranslate2")]

PATIENCE = 50

NUM_TOKENS = golden_options()["max_new_tokens"]
LLAMA = golden_rows("llama")[0]
T5 = golden_rows("t5-gated")[0]


@pytest_asyncio.fixture
async def served(start):
    async with start(store=tiny_store("llama", "t5-gated", "embedder")) as running:
        yield running


def asked(model, text, kind=generation_pb2.GenerateRequest, **fields):
    """A greedy request of as many tokens as were recorded."""
    sampling = sampling_pb2.SamplingParams(temperature=0, max_tokens=NUM_TOKENS)
    sampling.MergeFrom(fields.pop("sampling", sampling_pb2.SamplingParams()))
    prompt = generation_pb2.GenerationInput(text=text)
    return kind(model=model, input=prompt, sampling=sampling, **fields)


async def refusal_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    violations = details_of(caught.value).get("BadRequest")
    fields = [one.field for one in violations.field_violations] if violations else []
    return caught.value.code(), fields, caught.value.details()


@pytest.mark.parametrize(
    ("model", "row", "answer"),
    [("llama", LLAMA, LLAMA["greedy"]), ("t5-gated", T5, T5["greedy"][0]["token_ids"])],
    ids=["llama", "t5"],
)
async def test_a_stream_brings_the_recorded_answer_token_by_token(served, model, row, answer):
    # What is made while the loop is busy leaves together, so one of several calls must do.
    messages: list[Any] = []
    for _ in range(PATIENCE):
        call = served.text().GenerateStream(
            asked(model, row["text"], generation_pb2.GenerateStreamRequest)
        )
        messages = [message async for message in call]
        ids = [token for message in messages for token in message.chunk.token_ids]
        assert ids == answer
        if len(messages) > 2:
            break
    assert len(messages) > 2
    usage = messages[-1].info.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(row["token_ids"]), len(answer))

    whole = await served.text().Generate(asked(model, row["text"]))
    assert list(whole.choices[0].token_ids) == answer
    assert whole.choices[0].text == "".join(message.chunk.text for message in messages)


@pytest.mark.needs("onnxruntime")
async def test_a_decoder_answers_the_same_on_both_engines(start):
    request = asked("llama", LLAMA["text"])
    async with start(store=tiny_store("llama", backend="onnxruntime")) as other:
        answer = await other.text().Generate(request)
    assert list(answer.choices[0].token_ids) == LLAMA["greedy"]


async def test_an_answer_has_a_limit_of_its_own(served):
    """A source of 100 tokens leaves a T5 of 128 positions room for 512 tokens of answer."""
    text = " ".join(["cat"] * 98)
    sampling = sampling_pb2.SamplingParams(max_tokens=300, ignore_eos=True)
    answer = await served.text().Generate(asked("t5-gated", text, sampling=sampling))
    assert answer.info.usage.prompt_tokens > 64
    assert answer.info.usage.completion_tokens == 300
    assert answer.choices[0].finish_reason == common_pb2.FINISH_REASON_LENGTH


async def test_a_source_that_is_too_long_is_refused_by_its_field(served):
    code, fields, message = await refusal_of(
        served.text().Generate(asked("t5-gated", "the cat " * 200))
    )
    assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["input.text"])
    assert "at most 128" in message


async def test_special_tokens_of_a_source_are_left_out_on_request(served):
    request = asked("t5-gated", T5["text"])
    request.input.add_special_tokens = False
    request.output.prompt_token_ids = True
    answer = await served.text().Generate(request)
    assert list(answer.prompt.token_ids) == T5["token_ids"][:-1]


async def test_a_source_may_be_given_as_tokens(served):
    request = asked("t5-gated", "")
    request.input.token_ids.ids.extend(T5["token_ids"])
    answer = await served.text().Generate(request)
    assert list(answer.choices[0].token_ids) == T5["greedy"][0]["token_ids"]


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"temperature": 1, "min_p": 0.1}, "sampling.min_p"),
        ({"temperature": 1, "seed": 7}, "sampling.seed"),
        ({"presence_penalty": 0.5}, "sampling.presence_penalty"),
        ({"logit_bias": {3: 1.0}}, "sampling.logit_bias"),
    ],
)
@pytest.mark.parametrize("model", ["llama", "t5-gated"])
async def test_what_the_engine_would_ignore_is_refused_by_its_name(served, model, sampling, field):
    request = asked(model, "the cat", sampling=sampling_pb2.SamplingParams(**sampling))
    code, fields, message = await refusal_of(served.text().Generate(request))
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert field in message
    assert fields in ([], [field])


async def test_other_tokens_than_the_chosen_are_refused_by_their_name(served):
    request = asked("llama", "the cat")
    request.output.logprobs = 3
    code, _, message = await refusal_of(served.text().Generate(request))
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert "output.logprobs" in message


async def test_scores_after_a_penalty_are_not_given_for_the_models_own(served):
    sampling = sampling_pb2.SamplingParams(repetition_penalty=1.5)
    request = asked("t5-gated", "the cat", sampling=sampling)
    assert (await served.text().Generate(request)).choices[0].text
    request.output.logprobs = 0
    code, _, message = await refusal_of(served.text().Generate(request))
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert message.startswith("output.logprobs")


async def test_determinism_is_not_promised(served):
    request = asked("llama", "the cat", options=common_pb2.RequestOptions(deterministic=True))
    code, _, message = await refusal_of(served.text().Generate(request))
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert "options.deterministic" in message


async def test_an_encoder_generates_nothing(served):
    code, _, message = await refusal_of(served.text().Generate(asked("embedder", "the cat")))
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert "does embed" in message


async def test_a_stop_string_ends_the_text_before_it(served):
    whole = await served.text().Generate(asked("llama", LLAMA["text"]))
    stop = whole.choices[0].text[4:7]
    sampling = sampling_pb2.SamplingParams(stop=[stop])
    cut = await served.text().Generate(asked("llama", LLAMA["text"], sampling=sampling))
    assert cut.choices[0].text == whole.choices[0].text[: whole.choices[0].text.index(stop)]
    assert cut.choices[0].stop_string == stop


async def test_a_cancelled_stream_frees_the_engine(served):
    sampling = sampling_pb2.SamplingParams(max_tokens=200, ignore_eos=True)
    call = served.text().GenerateStream(
        asked("llama", "the cat", generation_pb2.GenerateStreamRequest, sampling=sampling)
    )
    await call.read()
    call.cancel()
    answer = await served.text().Generate(asked("llama", LLAMA["text"]))
    assert list(answer.choices[0].token_ids) == LLAMA["greedy"]
    (model,) = (one for one in served.models.loaded() if one.name.startswith("llama"))
    load = model.scheduler.load()
    assert (load.num_running, load.num_queued) == (0, 0)


async def test_a_decoder_of_whole_calls_chats(served):
    content = [message_pb2.ContentPart(text="hello")]
    message = message_pb2.Message(role=message_pb2.ROLE_USER, content=content)
    request = chat_pb2.ChatRequest(
        model="llama",
        input=chat_pb2.ChatInput(messages=[message]),
        sampling=sampling_pb2.SamplingParams(temperature=0, max_tokens=4, ignore_eos=True),
    )
    answer = await served.text().Chat(request)
    assert len(answer.choices[0].token_ids) == 4


async def test_a_source_is_tokenised_as_the_encoder_reads_it(served):
    request = tokenization_pb2.TokenizeRequest(
        model="t5-gated", inputs=[tokenization_pb2.TokenizeInput(text=T5["text"])]
    )
    framed = await served.text().Tokenize(request)
    request.add_special_tokens = False
    bare = await served.text().Tokenize(request)
    assert list(framed.results[0].token_ids) == T5["token_ids"]
    assert list(bare.results[0].token_ids) == T5["token_ids"][:-1]


async def test_special_tokens_in_a_source_are_text_on_request(served):
    request = tokenization_pb2.TokenizeRequest(
        model="t5-gated",
        inputs=[tokenization_pb2.TokenizeInput(text="cat</s>")],
        add_special_tokens=False,
    )
    parsed = await served.text().Tokenize(request)
    request.parse_special = False
    plain = await served.text().Tokenize(request)
    assert parsed.results[0].token_ids[-1] == T5["token_ids"][-1]
    assert T5["token_ids"][-1] not in plain.results[0].token_ids


async def test_texts_for_an_encoder_are_tokenised_and_brought_back(served):
    row = golden_rows("embedder")[0]
    request = tokenization_pb2.TokenizeRequest(
        model="embedder", inputs=[tokenization_pb2.TokenizeInput(text=row["text"])]
    )
    tokens = (await served.text().Tokenize(request)).results[0].token_ids
    assert list(tokens) == row["token_ids"]
    back = await served.text().Detokenize(
        tokenization_pb2.DetokenizeRequest(
            model="embedder", inputs=[common_pb2.TokenIds(ids=tokens)]
        )
    )
    assert back.results[0].text.lower().replace(" ", "") == row["text"].lower().replace(" ", "")


async def test_tokens_that_an_encoder_reads_have_no_details(served):
    request = tokenization_pb2.TokenizeRequest(
        model="t5-gated", inputs=[tokenization_pb2.TokenizeInput(text="the cat")], details=True
    )
    code, _, message = await refusal_of(served.text().Tokenize(request))
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert message.startswith("details")
