"""Generate, chat and their streams over a real channel, on the fake engine."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from leptond.backend.fake import END_OF_TURN, FakeOptions, expected_tokens
from leptond.v1 import chat_pb2, common_pb2, generation_pb2, message_pb2, sampling_pb2

pytestmark = pytest.mark.asyncio

GREEDY = sampling_pb2.SamplingParams(temperature=0, max_tokens=12)


def raw(text="Tell me", *, sampling=GREEDY, kind=generation_pb2.GenerateStreamRequest, **fields):
    return kind(
        model="toy",
        input=generation_pb2.GenerationInput(text=text),
        sampling=sampling,
        **fields,
    )


def user(text):
    return message_pb2.Message(
        role=message_pb2.ROLE_USER, content=[message_pb2.ContentPart(text=text)]
    )


async def collect(call):
    messages = [message async for message in call]
    assert await call.code() == grpc.StatusCode.OK
    return messages


def joined(messages):
    text = "".join(message.chunk.text for message in messages)
    ids = [token_id for message in messages for token_id in message.chunk.token_ids]
    return text, ids


async def test_a_stream_brings_exactly_the_tokens_of_the_model(served):
    request = raw()
    messages = await collect(served.text().GenerateStream(request))
    text, ids = joined(messages)
    prompt = served.model("toy").tokenizer.encode("Tell me")
    assert ids == expected_tokens(prompt, 12)
    assert text.encode() == b"".join(
        piece for message in messages for piece in message.chunk.token_bytes
    )
    offsets = [message.chunk.token_offset for message in messages]
    assert offsets == sorted(offsets)
    assert offsets[0] == 0


async def test_only_the_final_message_says_how_it_ended(served):
    messages = await collect(served.text().GenerateStream(raw()))
    *first, last = messages
    assert not any(message.HasField("info") or message.chunk.finish_reason for message in first)
    assert last.chunk.finish_reason == common_pb2.FINISH_REASON_LENGTH
    usage = last.info.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (len("Tell me"), 12)
    timing = last.info.timing
    parts = (
        timing.load_ms + timing.tokenize_ms + timing.queue_ms + timing.prefill_ms
        + timing.decode_ms + timing.delivery_ms
    )  # fmt: skip
    assert parts == pytest.approx(timing.total_ms, rel=0.05, abs=1.0)
    assert 0 < timing.first_token_ms <= timing.total_ms
    assert last.info.model == "toy:fake"
    assert last.info.model_version == 1


async def test_the_unary_answer_is_the_stream_joined(served):
    streamed = await collect(served.text().GenerateStream(raw()))
    whole = await served.text().Generate(raw(kind=generation_pb2.GenerateRequest))
    (choice,) = whole.choices
    assert (choice.text, list(choice.token_ids)) == joined(streamed)
    assert choice.finish_reason == common_pb2.FINISH_REASON_LENGTH
    assert whole.info.usage == streamed[-1].info.usage


async def test_a_chat_is_rendered_by_the_models_template(served):
    request = chat_pb2.ChatRequest(
        model="toy", input=chat_pb2.ChatInput(messages=[user("Hello")]), sampling=GREEDY
    )
    answer = await served.text().Chat(request)
    rendered = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    prompt = served.model("toy").tokenizer.encode(rendered)
    assert list(answer.choices[0].token_ids) == expected_tokens(prompt, 12)
    assert answer.choices[0].message.role == message_pb2.ROLE_ASSISTANT
    assert answer.info.usage.prompt_tokens == len(prompt)
    streamed = await collect(
        served.text().ChatStream(
            chat_pb2.ChatStreamRequest(
                model="toy", input=chat_pb2.ChatInput(messages=[user("Hello")]), sampling=GREEDY
            )
        )
    )
    assert joined(streamed)[0] == answer.choices[0].message.content[0].text


async def test_a_stop_token_is_among_the_ids_and_not_in_the_text(served):
    request = raw(sampling=sampling_pb2.SamplingParams(temperature=0, max_tokens=2000))
    messages = await collect(served.text().GenerateStream(request))
    text, ids = joined(messages)
    last = messages[-1].chunk
    assert last.finish_reason == common_pb2.FINISH_REASON_STOP
    assert last.stop_token_id == ids[-1] == END_OF_TURN
    assert "<|im_end|>" not in text


async def test_a_stop_string_ends_the_text_before_it(served):
    whole, _ = joined(await collect(served.text().GenerateStream(raw())))
    stop = whole[5:8]
    sampling = sampling_pb2.SamplingParams(temperature=0, max_tokens=12, stop=[stop])
    messages = await collect(served.text().GenerateStream(raw(sampling=sampling)))
    text, _ = joined(messages)
    assert text == whole[: whole.index(stop)]
    assert messages[-1].chunk.stop_string == stop
    assert messages[-1].chunk.finish_reason == common_pb2.FINISH_REASON_STOP


async def test_whose_limit_ended_a_text_is_told_apart(start):
    endless = FakeOptions(mean_sentences=0, context=64)
    async with start({"toy": endless}) as served:
        context = await collect(
            served.text().GenerateStream(
                raw(sampling=sampling_pb2.SamplingParams(temperature=0, max_tokens=5000))
            )
        )
        assert context[-1].chunk.finish_reason == common_pb2.FINISH_REASON_CONTEXT_LENGTH
        assert len(joined(context)[1]) == 64 - len("Tell me")


async def test_logprobs_come_with_each_token(served):
    request = raw(output=generation_pb2.OutputOptions(logprobs=2))
    messages = await collect(served.text().GenerateStream(request))
    for message in messages:
        entries = message.chunk.logprobs
        assert list(entries.token_ids) == list(message.chunk.token_ids)
        assert list(entries.token_bytes) == list(message.chunk.token_bytes)
        assert all(value <= 0 for value in entries.logprobs)
        assert all(len(top.token_ids) == 2 for top in entries.top)
        assert [top.token_ids[0] for top in entries.top] == list(entries.token_ids)  # greedy


async def test_equal_seeds_draw_equal_texts(served):
    def request(seed):
        sampling = sampling_pb2.SamplingParams(temperature=1.5, max_tokens=30, seed=seed)
        return raw(sampling=sampling, kind=generation_pb2.GenerateRequest)

    texts = [(await served.text().Generate(request(seed))).choices[0].text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


async def test_tokens_are_gathered_when_the_caller_asks_for_it(start):
    async with start({"toy": FakeOptions(tokens_per_s=200)}) as served:
        request = raw(stream=generation_pb2.StreamOptions(stream_interval_tokens=4))
        messages = await collect(served.text().GenerateStream(request))
        sizes = [len(message.chunk.token_ids) for message in messages]
        assert sizes == [1, 4, 4, 3]


async def test_the_prompts_tokens_come_once_when_asked_for(served):
    request = raw(output=generation_pb2.OutputOptions(prompt_token_ids=True))
    first, *rest = await collect(served.text().GenerateStream(request))
    assert list(first.prompt.token_ids) == served.model("toy").tokenizer.encode("Tell me")
    assert not any(message.HasField("prompt") for message in rest)


async def test_the_callers_label_is_echoed_and_the_daemons_id_is_its_own(served):
    options = common_pb2.RequestOptions(request_id="my-label")
    calls = [served.text().GenerateStream(raw(options=options)) for _ in range(2)]
    infos = [(await collect(call))[-1].info for call in calls]
    assert [info.request_id for info in infos] == ["my-label"] * 2
    assert infos[0].server_request_id != infos[1].server_request_id
    for call, info in zip(calls, infos, strict=True):
        metadata = dict(await call.initial_metadata()), dict(await call.trailing_metadata())
        assert [one["x-request-id"] for one in metadata] == [info.server_request_id] * 2


async def test_many_streams_at_once_each_get_their_own_answer(served):
    prompts = [f"Prompt number {number}" for number in range(40)]
    stub = served.text()
    answers = await asyncio.gather(
        *(collect(stub.GenerateStream(raw(prompt))) for prompt in prompts)
    )
    tokenizer = served.model("toy").tokenizer
    for prompt, messages in zip(prompts, answers, strict=True):
        assert joined(messages)[1] == expected_tokens(
            tokenizer.encode(prompt), 12, stop_token_ids=tokenizer.stop_ids
        )


def details_of(error):
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    found = {}
    for detail in status.details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.RetryInfo,
        ):
            if detail.TypeName() == kind.DESCRIPTOR.full_name:
                found[kind.DESCRIPTOR.name] = kind.FromString(detail.value)
    return found


async def refused(served, request, *, method="GenerateStream"):
    call = getattr(served.text(), method)(request)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(call)
    error = caught.value
    assert not dict(error.initial_metadata()), "a refusal carries no initial metadata"
    return error


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"temperature": float("nan")}, "sampling.temperature"),
        ({"temperature": -0.1}, "sampling.temperature"),
        ({"temperature": float("inf")}, "sampling.temperature"),
        ({"top_p": 0.0}, "sampling.top_p"),
        ({"top_p": 1.5}, "sampling.top_p"),
        ({"min_p": -1.0}, "sampling.min_p"),
        ({"repetition_penalty": 0.0}, "sampling.repetition_penalty"),
        ({"presence_penalty": 2.1}, "sampling.presence_penalty"),
        ({"frequency_penalty": float("nan")}, "sampling.frequency_penalty"),
        ({"max_tokens": 0}, "sampling.max_tokens"),
        ({"max_tokens": 3, "min_tokens": 4}, "sampling.min_tokens"),
        ({"stop": [""]}, "sampling.stop[0]"),
        ({"stop": ["x"] * 17}, "sampling.stop"),
        ({"stop": ["x" * 1025]}, "sampling.stop[0]"),
        ({"stop_token_ids": [10_000]}, "sampling.stop_token_ids"),
        ({"logit_bias": {10_000: 1.0}}, "sampling.logit_bias[10000]"),
        ({"logit_bias": {1: float("inf")}}, "sampling.logit_bias[1]"),
        ({"num_choices": 0}, "sampling.num_choices"),
    ],
)
async def test_a_value_out_of_range_is_refused_by_field_and_limit(served, sampling, field):
    error = await refused(served, raw(sampling=sampling_pb2.SamplingParams(**sampling)))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in error.details()
    (violation,) = details_of(error)["BadRequest"].field_violations
    assert violation.field == field


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"adapter_name": "lora"}, "adapter_name"),
        ({"options": common_pb2.RequestOptions(idempotency_key="k")}, "options.idempotency_key"),
        ({"output": generation_pb2.OutputOptions(echo=True)}, "output.echo"),
        ({"output": generation_pb2.OutputOptions(prompt_logprobs=1)}, "output.prompt_logprobs"),
        ({"stream": generation_pb2.StreamOptions(resume_offsets=[3])}, "stream.resume_offsets"),
        (
            {
                "sampling": sampling_pb2.SamplingParams(
                    constraint=sampling_pb2.Constraint(regex="a+")
                )
            },
            "sampling.constraint",
        ),
        ({"sampling": sampling_pb2.SamplingParams(num_choices=2)}, "sampling.num_choices"),
    ],
)
async def test_what_is_not_done_yet_is_unimplemented_by_name(served, request_fields, field):
    error = await refused(served, raw(**{"sampling": GREEDY, **request_fields}))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert field in error.details()
    assert details_of(error)["ErrorInfo"].reason == "UNSUPPORTED_CAPABILITY"


async def test_an_unknown_model_is_not_found_and_says_its_name(served):
    request = raw()
    request.model = "nothing"
    error = await refused(served, request)
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert "nothing" in error.details()


@pytest.mark.parametrize("model", ["", "../../etc/passwd", "a" * 1000, "x:y:z"])
async def test_a_name_that_is_none_is_invalid(served, model):
    request = raw()
    request.model = model
    error = await refused(served, request)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_version_that_is_not_there_is_not_found(served):
    request = raw()
    request.model_version = 7
    assert (await refused(served, request)).code() == grpc.StatusCode.NOT_FOUND


async def test_an_empty_prompt_is_refused(served):
    assert (await refused(served, raw(""))).code() == grpc.StatusCode.INVALID_ARGUMENT
    empty = raw()
    empty.ClearField("input")
    assert (await refused(served, empty)).code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_prompt_longer_than_the_context_names_the_limit(served):
    error = await refused(served, raw("x" * 2048))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "2048" in error.details()
    assert details_of(error)["ErrorInfo"].reason == "REQUEST_TOO_LARGE"


async def test_ten_megabytes_are_refused_by_their_size(served):
    error = await refused(served, raw("x" * 10_000_000))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "bytes" in error.details()


async def test_token_ids_that_the_model_lacks_are_refused(served):
    request = raw()
    request.input.token_ids.ids.extend([1, 2, 100_000])
    error = await refused(served, request)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "100000" in error.details()


async def test_a_message_without_a_role_is_refused(served):
    request = chat_pb2.ChatStreamRequest(
        model="toy", input=chat_pb2.ChatInput(messages=[message_pb2.Message()])
    )
    error = await refused(served, request, method="ChatStream")
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "input.messages[0].role" in error.details()


@pytest.mark.parametrize("junk", [b"\xff\xff\xff", b"\x0a\x03\xff\xfe\xfd", b"\x2a\x05ab"])
async def test_bytes_that_are_no_message_are_invalid_and_name_no_class(served, junk):
    method = served.channel().unary_stream(
        "/leptond.v1.TextGenerationService/GenerateStream",
        request_serializer=lambda data: data,
        response_deserializer=lambda data: data,
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(method(junk))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "Error" not in caught.value.details()


async def test_a_method_that_is_not_served_is_unimplemented(served):
    method = served.channel().unary_unary("/leptond.v1.SharedMemoryService/Lease")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
