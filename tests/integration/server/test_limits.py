"""Requests with many elements, bursts, and what is told of calls that end early."""

from __future__ import annotations

import asyncio
import logging
import time

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from leptond.backend.fake import FakeOptions
from leptond.errors import InvalidRequest
from leptond.server.transport import TransportOptions
from leptond.v1 import (
    chat_pb2,
    common_pb2,
    generation_pb2,
    message_pb2,
    sampling_pb2,
    tokenization_pb2,
)
from tests.integration.server.test_generation import collect, details_of, raw, refused, user
from tests.integration.server.test_lifecycle import SLOW, eventually, long, num_running

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"stop_token_ids": [1] * 1025}, "sampling.stop_token_ids"),
        ({"logit_bias": dict.fromkeys(range(1025), 1.0)}, "sampling.logit_bias"),
        ({"logit_bias": {1: 1e5}}, "sampling.logit_bias[1]"),
        ({"repetition_penalty": 1.4e-45}, "sampling.repetition_penalty"),
        ({"repetition_penalty": 1e30}, "sampling.repetition_penalty"),
    ],
)
async def test_too_many_elements_and_values_that_overflow_are_refused(served, sampling, field):
    error = await refused(served, raw(sampling=sampling_pb2.SamplingParams(**sampling)))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in error.details()


async def test_a_long_salt_is_refused(served):
    options = common_pb2.RequestOptions(cache_salt="é" * 65)
    error = await refused(served, raw(options=options))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "options.cache_salt" in error.details()


async def longest_gap_s(call):
    """The longest time between two messages of a stream, the first one left out."""
    gaps, last = [], None
    async for _ in call:
        now = time.monotonic()
        if last is not None:
            gaps.append(now - last)
        last = now
    return max(gaps)


@pytest.mark.parametrize("kind", ["stop_token_ids", "token_ids", "messages", "detokenize"])
async def test_a_request_of_many_elements_is_refused_and_stalls_nobody(start, kind):
    """The loop may parse a message of megabytes; it must not walk through it in Python."""
    chat = chat_pb2.ChatStreamRequest(model="toy")
    request = raw()
    method = "GenerateStream"
    if kind == "stop_token_ids":
        request.sampling.stop_token_ids.extend([1] * 3_000_000)
    elif kind == "token_ids":
        request.input.token_ids.ids.extend([1] * 3_000_000)
    elif kind == "messages":
        chat.input.messages.extend([user("x")] * 20_000)
        request, method = chat, "ChatStream"
    else:
        many = [common_pb2.TokenIds(ids=[1] * 1000)] * 500
        request = tokenization_pb2.DetokenizeRequest(model="toy", inputs=many)
        method = "Detokenize"
    async with start({"toy": FakeOptions(tokens_per_s=100, mean_sentences=0)}) as served:
        gap = asyncio.ensure_future(
            longest_gap_s(served.text().GenerateStream(long("neighbour", 100)))
        )
        await eventually(lambda: bool(served.models.loaded()) and num_running(served) == 1)
        call = getattr(served.text(), method)(request)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (collect(call) if method.endswith("Stream") else call)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        # Walking through 3 million elements takes a second; this is what a slow machine may need.
        assert await gap < 0.6


@pytest.mark.parametrize(
    "request_",
    [
        tokenization_pb2.TokenizeRequest(
            model="toy", inputs=[tokenization_pb2.TokenizeInput(text="x" * 2000)] * 1025
        ),
        tokenization_pb2.TokenizeRequest(
            model="toy", inputs=[tokenization_pb2.TokenizeInput(text="x" * 5000)] * 1000
        ),
    ],
)
async def test_one_call_tokenises_so_much_and_no_more(served, request_):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.text().Tokenize(request_)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "in one call" in caught.value.details()
    assert not dict(caught.value.initial_metadata())


async def test_an_answer_over_the_limit_is_said_to_be_so(start):
    transport = TransportOptions(max_message_bytes=64 << 10)
    async with start(transport=transport) as served:
        inputs = [tokenization_pb2.TokenizeInput(text="x" * 1000)] * 50
        request = tokenization_pb2.TokenizeRequest(model="toy", inputs=inputs, details=True)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.text().Tokenize(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert str(64 << 10) in caught.value.details()


async def test_the_limit_of_time_holds_while_a_model_is_loaded_for_tokenize(start):
    async with start({"toy": FakeOptions(load_s=1.0)}) as served:
        request = tokenization_pb2.TokenizeRequest(
            model="toy",
            inputs=[tokenization_pb2.TokenizeInput(text="x")],
            options=common_pb2.RequestOptions(timeout_ms=100),
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.text().Tokenize(request)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def outcome(call):
    """The status of a stream, read to its end."""
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return await call.code()


async def test_a_burst_is_refused_by_us_and_never_by_a_bare_cancel(start):
    async with start({"toy": FakeOptions(tokens_per_s=100)}) as served:
        stub = served.text()
        calls = [stub.GenerateStream(raw(f"call {number}")) for number in range(3000)]
        codes = await asyncio.gather(*(outcome(call) for call in calls))
        assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert grpc.StatusCode.OK in codes


@pytest.mark.parametrize(
    ("path", "is_named"),
    [
        ("leptond.v1.SharedMemoryService/Lease", True),
        ("leptond.v1.TextGenerationService/Converse", True),
        ("no.Such/Thing", True),
        ("x" * 5000 + "/y", False),
    ],
)
async def test_a_method_that_is_not_served_is_named_with_details(served, path, is_named):
    method = served.channel().unary_unary(f"/{path}")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(b"")
    error = caught.value
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert (path in error.details()) is is_named
    assert len(error.details()) < 300
    assert details_of(error)["ErrorInfo"].metadata["request_id"]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_corrupt_bytes_in_a_stream_of_requests_are_invalid(served, version):
    method = served.channel().stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(method(iter([b"\xff\xff\xff"])))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def told(caplog):
    """The request lines, as text."""
    return [record.getMessage() for record in caplog.records if record.name == "leptond.request"]


async def test_a_cancelled_call_tells_the_phases_and_tokens_that_it_had(start, caplog):
    caplog.set_level(logging.INFO, logger="leptond.request")
    async with start({"toy": SLOW}) as served:
        call = served.text().GenerateStream(long())
        stream = aiter(call)
        for _ in range(10):
            await anext(stream)
        call.cancel()
        await eventually(lambda: len(told(caplog)) == 1)
        (line,) = told(caplog)
        assert "status=CANCELLED" in line
        assert "prefill_ms=" in line
        assert "decode_ms=" in line
        assert "deliver_ms=" not in line
        tokens = int(line.split("completion_tokens=")[1].split()[0])
        assert 10 <= tokens < 100


@pytest.mark.parametrize("timeout", [0.2, 1.0, 1.37])
async def test_a_deadline_is_told_as_a_deadline(start, caplog, timeout):
    caplog.set_level(logging.INFO, logger="leptond.request")
    async with start({"toy": SLOW}) as served:
        with pytest.raises(grpc.aio.AioRpcError):
            await collect(served.text().GenerateStream(long(), timeout=timeout))
        await eventually(lambda: len(told(caplog)) == 1)
        assert "status=DEADLINE_EXCEEDED" in told(caplog)[0]


async def test_an_address_that_is_a_file_is_left_alone(start, tmp_path):
    file = tmp_path / "leptond.sock"
    file.write_text("precious")
    with pytest.raises(InvalidRequest, match="not a socket"):
        async with start():
            pass
    assert file.read_text() == "precious"


async def test_a_socket_that_somebody_serves_is_not_taken_over(start):
    async with start() as served:
        with pytest.raises(InvalidRequest, match="another process serves"):
            async with start():
                pass
        await collect(served.text().GenerateStream(raw()))


async def test_a_chat_without_prompt_info_has_none(served):
    part = message_pb2.ContentPart(text="Hello")
    message = message_pb2.Message(role=message_pb2.ROLE_USER, content=[part])
    request = chat_pb2.ChatRequest(
        model="toy",
        input=chat_pb2.ChatInput(messages=[message]),
        sampling=sampling_pb2.SamplingParams(max_tokens=2),
    )
    assert not (await served.text().Chat(request)).HasField("prompt")
    request.output.CopyFrom(generation_pb2.OutputOptions(prompt_token_ids=True))
    assert (await served.text().Chat(request)).prompt.token_ids
