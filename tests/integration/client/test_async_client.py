"""The asyncio client against a real server: what differs from the blocking one."""

from __future__ import annotations

import asyncio
import threading

import grpc
import pytest
import pytest_asyncio

from leptond.v1 import generation_pb2, management_pb2, tokenization_pb2
from leptond_client import (
    AsyncClient,
    Cancelled,
    DeadlineExceeded,
    Message,
    ResourceExhausted,
    RetryPolicy,
    ServingStatus,
    Unavailable,
    health_messages,
)
from tests.integration.client.conftest import QUICK
from tests.integration.client.scripted import (
    GENERATIVE,
    PATIENCE_S,
    ScriptedDaemon,
    answers,
    commit,
    lists,
    model,
    never_answers,
    piece,
    refuse,
    says,
    streams,
    waits_until_cancelled,
)

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def client(daemon):
    async with AsyncClient(daemon.address, retry=QUICK) as client:
        yield client


async def happened(event: threading.Event) -> bool:
    return await asyncio.to_thread(event.wait, PATIENCE_S)


async def texts_of(stream):
    return [delta.text async for delta in stream]


async def test_every_method_brings_its_answer(daemon, client):
    toy = model("toy", *GENERATIVE)
    serving = health_messages.HealthCheckResponse(status=1)
    listing = health_messages.HealthListResponse()
    listing.statuses[""].status = 1
    daemon.behaviours |= {
        "Generate": answers("raw"),
        "GenerateStream": streams("a", "b"),
        "Chat": says("chat"),
        "ChatStream": streams("c", "d"),
        "Tokenize": lambda *_: tokenization_pb2.TokenizeResponse(
            results=[tokenization_pb2.TokenizedText(token_ids=[1])]
        ),
        "Detokenize": lambda *_: tokenization_pb2.DetokenizeResponse(
            results=[tokenization_pb2.DetokenizedText(text="t")]
        ),
        "ListModels": lists(toy),
        "LoadModel": lambda *_: iter(
            [management_pb2.LoadModelResponse(fraction=1.0, variant=toy.variants[0])]
        ),
        "UnloadModel": lambda *_: management_pb2.UnloadModelResponse(freed_bytes=1),
        "GetLoad": lambda *_: management_pb2.GetLoadResponse(num_calls=4),
        "Check": lambda *_: serving,
        "Watch": lambda *_: iter([serving]),
        "List": lambda *_: listing,
    }
    assert (await client.generate("toy", "hi")).text == "raw"
    assert await texts_of(client.generate_stream("toy", "hi")) == ["a", "b"]
    assert (await client.chat("toy", [Message("user", "hi")])).text == "chat"
    chat = client.chat_stream("toy", [Message("user", "hi")])
    assert await texts_of(chat) == ["c", "d"]
    assert chat.result.text == "cd"
    assert (await client.tokenize("toy", "hi")).token_ids == (1,)
    assert await client.detokenize("toy", [1]) == "t"
    assert (await client.models())[0].name == "toy"
    load = client.load_model("toy")
    assert [step.fraction async for step in load] == [1.0]
    assert load.result.name == "toy:fake"
    assert (await client.unload_model("toy")).freed_bytes == 1
    assert (await client.get_load()).num_calls == 4
    assert await client.check() is ServingStatus.SERVING
    assert [status async for status in client.watch()] == [ServingStatus.SERVING]
    assert await client.health() == {"": ServingStatus.SERVING}


async def test_an_answer_may_be_longer_than_grpc_allows_by_default(daemon, client):
    text = "x" * (6 << 20)
    daemon.behaviours["Generate"] = lambda request, context: generation_pb2.GenerateResponse(
        choices=[generation_pb2.GenerationChoice(text=text)]
    )
    assert (await client.generate("toy", text)).text == text


async def test_it_talks_over_tcp():
    with ScriptedDaemon("127.0.0.1:0").running() as daemon:
        daemon.behaviours["Generate"] = answers("x")
        async with AsyncClient(daemon.address) as client:
            assert client.address == daemon.address
            assert (await client.generate("toy", "hi")).text == "x"


async def test_a_client_that_was_never_used_can_be_closed(daemon):
    await AsyncClient(daemon.address).close()


async def test_errors_are_the_same(daemon, client):
    daemon.behaviours["Generate"] = lambda request, context: refuse(
        context, grpc.StatusCode.RESOURCE_EXHAUSTED, reason="QUEUE_FULL", retry_after_s=2.0
    )
    with pytest.raises(ResourceExhausted) as caught:
        await client.generate("toy", "hi")
    assert (caught.value.reason, caught.value.retry_after_s) == ("QUEUE_FULL", 2.0)


async def test_the_timeout_bounds_a_stream(daemon, client):
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(threading.Event())
    with pytest.raises(DeadlineExceeded):
        await texts_of(client.generate_stream("toy", "hi", timeout=0.2))


# -------------------------------------------------------------------------------------- to leave
async def test_leaving_the_loop_cancels_the_call(daemon, client):
    gone = threading.Event()
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(gone)
    stream = client.generate_stream("toy", "hi")
    async for delta in stream:
        assert delta.text == "first"
        break
    assert await happened(gone)
    with pytest.raises(Cancelled):
        await texts_of(stream)


async def test_the_end_of_the_block_cancels_the_call(daemon, client):
    gone = threading.Event()
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(gone)
    async with client.generate_stream("toy", "hi"):
        assert await happened(daemon.arrived)
    assert await happened(gone)


async def test_cancelling_the_task_cancels_a_stream(daemon, client):
    gone = threading.Event()
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(gone)
    task = asyncio.create_task(texts_of(client.generate_stream("toy", "hi")))
    assert await happened(daemon.arrived)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await happened(gone)


async def test_cancelling_the_task_cancels_a_call(daemon, client):
    gone = threading.Event()
    daemon.behaviours["Generate"] = never_answers(gone)
    task = asyncio.create_task(client.generate("toy", "hi"))
    assert await happened(daemon.arrived)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await happened(gone)


async def test_another_task_can_cancel(daemon, client):
    gone = threading.Event()
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(gone)
    stream = client.generate_stream("toy", "hi")
    reader = asyncio.create_task(texts_of(stream))
    assert await happened(daemon.arrived)
    stream.cancel()
    with pytest.raises(Cancelled, match="by its reader"):
        await reader
    assert await happened(gone)


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_closing_the_client_ends_its_calls(daemon, is_streamed):
    gone = threading.Event()
    daemon.behaviours["Generate"] = never_answers(gone)
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(gone)
    async with AsyncClient(daemon.address) as client:
        stream = texts_of(client.generate_stream("toy", "hi")) if is_streamed else None
        task = asyncio.create_task(stream or client.generate("toy", "hi"))
        assert await happened(daemon.arrived)
    with pytest.raises(Cancelled, match="closed"):
        await task
    assert await happened(gone)


# --------------------------------------------------------------------------------- the retry rule
async def test_calls_that_were_not_admitted_are_repeated(daemon, client):
    left = {"Generate": 2, "GenerateStream": 2}

    def unless_refused(method, behave):
        def refuse_first(request, context):
            if left[method]:
                left[method] -= 1
                refuse(context, grpc.StatusCode.UNAVAILABLE, retry_after_s=0.01)
            return behave(request, context)

        return refuse_first

    daemon.behaviours["Generate"] = unless_refused("Generate", answers("x"))
    daemon.behaviours["GenerateStream"] = unless_refused("GenerateStream", streams("x"))
    assert (await client.generate("toy", "hi")).text == "x"
    assert await texts_of(client.generate_stream("toy", "hi")) == ["x"]
    assert len(daemon.calls) == 6


async def test_a_stream_that_was_admitted_is_not_repeated(daemon, client):
    def behave(request, context):
        commit(context)
        yield generation_pb2.GenerateStreamResponse(chunk=piece("some"))
        refuse(context, grpc.StatusCode.UNAVAILABLE, retry_after_s=0.01)

    daemon.behaviours["GenerateStream"] = behave
    with pytest.raises(Unavailable) as caught:
        await texts_of(client.generate_stream("toy", "hi"))
    assert caught.value.was_admitted
    assert len(daemon.calls) == 1


async def test_cancelling_ends_the_wait_for_a_repetition(daemon):
    refused = threading.Event()

    def behave(request, context):
        refused.set()
        refuse(context, grpc.StatusCode.UNAVAILABLE, retry_after_s=60.0)

    daemon.behaviours["GenerateStream"] = behave
    patient = RetryPolicy(max_wait_s=100.0)
    async with AsyncClient(daemon.address, retry=patient) as client:
        stream = client.generate_stream("toy", "hi")
        reader = asyncio.create_task(texts_of(stream))
        assert await happened(refused)
        stream.cancel()
        with pytest.raises(Cancelled):
            await reader


async def test_a_restart_between_calls_goes_unnoticed(daemon, client):
    daemon.behaviours["GenerateStream"] = streams("x")
    assert await texts_of(client.generate_stream("toy", "hi")) == ["x"]
    await asyncio.to_thread(daemon.stop)
    reader = asyncio.create_task(texts_of(client.generate_stream("toy", "hi")))
    await asyncio.to_thread(daemon.start)
    assert await reader == ["x"]
