"""Cancel, deadline, slow reader, load, drain: what happens to a call and to its neighbours."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest

from leptond.backend.fake import FakeOptions, expected_tokens
from leptond.models import LoadPolicy
from leptond.scheduler import SchedulerOptions
from leptond.v1 import common_pb2, generation_pb2, sampling_pb2
from tests.integration.server.test_generation import collect, details_of, joined, raw

pytestmark = pytest.mark.asyncio

SLOW = FakeOptions(tokens_per_s=200, mean_sentences=0)
RETRIES = [
    (
        "grpc.service_config",
        json.dumps(
            {
                "methodConfig": [
                    {
                        "name": [{}],
                        "retryPolicy": {
                            "maxAttempts": 5,
                            "initialBackoff": "0.1s",
                            "maxBackoff": "1s",
                            "backoffMultiplier": 2,
                            "retryableStatusCodes": ["UNAVAILABLE"],
                        },
                    }
                ]
            }
        ),
    )
]


def long(text="Tell me", max_tokens=1000, **fields):
    return raw(
        text, sampling=sampling_pb2.SamplingParams(temperature=0, max_tokens=max_tokens), **fields
    )


async def eventually(claim, within_s=5.0):
    async with asyncio.timeout(within_s):
        while not claim():
            await asyncio.sleep(0.005)


def num_running(served, name="toy"):
    return served.model(name).scheduler.load().num_running


async def test_a_cancelled_call_frees_its_slot_and_its_neighbour_never_notices(start):
    async with start({"toy": SLOW}) as served:
        stub = served.text()
        victim = stub.GenerateStream(long("victim"))
        neighbour = asyncio.ensure_future(collect(stub.GenerateStream(long("other", 60))))
        await anext(aiter(victim))
        await eventually(lambda: num_running(served) == 2)
        victim.cancel()
        await eventually(lambda: num_running(served) == 1)
        tokens = joined(await neighbour)[1]
        prompt = served.model("toy").tokenizer.encode("other")
        assert tokens == expected_tokens(prompt, 60, SLOW)
        await eventually(lambda: num_running(served) == 0)


async def test_the_deadline_ends_a_running_call(start):
    async with start({"toy": SLOW}) as served:
        call = served.text().GenerateStream(long(), timeout=0.3)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(call)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: num_running(served) == 0)


async def test_a_limit_of_time_in_the_request_ends_it_too(start):
    async with start({"toy": SLOW}) as served:
        options = common_pb2.RequestOptions(timeout_ms=300)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(served.text().GenerateStream(long(options=options)))
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_deadline_holds_in_the_queue(start):
    one_slot = FakeOptions(tokens_per_s=200, mean_sentences=0, slots=1)
    async with start({"toy": one_slot}) as served:
        stub = served.text()
        running = stub.GenerateStream(long())
        await anext(aiter(running))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(stub.GenerateStream(long("waits"), timeout=0.3))
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: served.model("toy").scheduler.load().num_queued == 0)
        running.cancel()


async def test_a_full_queue_refuses_with_a_time_to_come_again(start):
    one_slot = FakeOptions(tokens_per_s=200, mean_sentences=0, slots=1)
    async with start({"toy": one_slot}, scheduler=SchedulerOptions(max_queued=1)) as served:
        stub = served.text()
        calls = [stub.GenerateStream(long("runs"))]
        await anext(aiter(calls[0]))
        calls.append(stub.GenerateStream(long("waits")))
        await eventually(lambda: served.model("toy").scheduler.load().num_queued == 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(stub.GenerateStream(long("too many")))
        error = caught.value
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not dict(error.initial_metadata())
        assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
        assert details_of(error)["RetryInfo"].retry_delay.ToMilliseconds() > 0
        for call in calls:
            call.cancel()


async def test_a_model_is_loaded_by_the_first_request_and_once_only(start):
    async with start({"toy": FakeOptions(load_s=0.3)}) as served:
        answers = await asyncio.gather(
            *(collect(served.text().GenerateStream(raw())) for _ in range(8))
        )
        assert len({joined(messages)[1][-1] for messages in answers}) == 1
        assert answers[0][-1].info.timing.load_ms >= 200


async def test_a_call_waits_for_a_load_no_longer_than_its_deadline(start):
    async with start({"toy": FakeOptions(load_s=1.0)}) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(served.text().GenerateStream(raw(), timeout=0.2))
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await collect(served.text().GenerateStream(raw()))


async def test_grpcs_own_retries_get_over_a_model_that_is_being_loaded(start):
    fakes = {"toy": FakeOptions(load_s=0.5)}
    async with start(fakes, policy=LoadPolicy.MANUAL) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(served.text().GenerateStream(raw()))
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        served.models.load("toy")
        call = served.text(options=RETRIES).GenerateStream(raw())
        assert len(joined(await collect(call))[1]) == 12


async def test_a_failed_load_is_a_failed_precondition_with_its_reason(start):
    async with start({"toy": FakeOptions(load_fails=1)}) as served:
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await collect(served.text().GenerateStream(raw()))
            assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert "as told" in caught.value.details()


async def test_no_memory_for_a_model_is_said_as_such(start):
    async with start({"toy": FakeOptions(weights_bytes=1 << 30)}, memory_bytes=1 << 20) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(served.text().GenerateStream(raw()))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_draining_refuses_new_calls_and_finishes_those_that_run(start):
    async with start({"toy": SLOW}) as served:
        stub = served.text()
        running = stub.GenerateStream(long(max_tokens=60))
        await anext(aiter(running))
        served.front.drain()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(stub.GenerateStream(raw()))
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert not dict(caught.value.initial_metadata())
        rest = await collect(running)
        assert rest[-1].info.usage.completion_tokens == 60
        await asyncio.wait_for(served.front.wait_idle(), 5)


async def test_what_outlives_the_grace_period_ends_unavailable(start):
    async with start({"toy": SLOW}) as served:
        running = served.text().GenerateStream(long())
        await anext(aiter(running))
        served.front.drain()
        await served.front.stop()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(running)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "stopped" in caught.value.details()


async def test_a_reader_that_does_not_read_loses_its_call_and_nobody_elses(start):
    small_windows = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536)]
    wordy = FakeOptions(tokens_per_s=2000, mean_sentences=0, context=8192)
    async with start({"toy": wordy}, slow_reader_s=1.0) as served:
        lazy = served.text(options=small_windows).GenerateStream(
            long("lazy", 8000, output=generation_pb2.OutputOptions(logprobs=20))
        )
        await anext(aiter(lazy))
        other = joined(await collect(served.text().GenerateStream(long("other", 300))))
        assert len(other[1]) == 300
        await eventually(lambda: num_running(served) == 0, within_s=20)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(lazy)
        assert caught.value.code() == grpc.StatusCode.ABORTED
        assert "to be read" in caught.value.details()


async def test_a_fault_of_the_engine_is_internal_and_tells_nothing(start, caplog):
    async with start({"toy": FakeOptions(poison_token=ord("Z"))}) as served:
        good = asyncio.ensure_future(collect(served.text().GenerateStream(raw("good"))))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(served.text().GenerateStream(raw("Z")))
        error = caught.value
        assert error.code() == grpc.StatusCode.INTERNAL
        request_id = details_of(error)["ErrorInfo"].metadata["request_id"]
        assert error.details() == f"internal error, request {request_id}"
        assert len(joined(await good)[1]) == 12
    assert request_id in caplog.text


async def test_a_thousand_streams_opened_and_dropped_leave_nothing(start):
    async with start({"toy": FakeOptions(tokens_per_s=500, mean_sentences=0)}) as served:
        stub = served.text()
        keeper = asyncio.ensure_future(collect(stub.GenerateStream(long("keeper", 1500))))
        await eventually(lambda: bool(served.models.loaded()) and num_running(served) == 1)
        for _ in range(20):
            calls = [stub.GenerateStream(long(f"drop {number}")) for number in range(50)]
            await asyncio.sleep(0.01)
            for call in calls:
                call.cancel()
            await asyncio.gather(*(call.code() for call in calls))
        load = served.model("toy").scheduler.load
        await eventually(lambda: load().num_running <= 1 and load().num_queued == 0)
        assert len(joined(await keeper)[1]) == 1500
        await eventually(lambda: load().kv_tokens == 0)
        await eventually(lambda: served.front.num_calls == 0)
