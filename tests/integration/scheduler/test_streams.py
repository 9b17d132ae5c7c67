"""The whole way from a worker thread to a coroutine on a real event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import itertools
import threading
import time
import weakref
from typing import Any

import pytest

from leptond.backend.fake import FakeOptions, expected_tokens
from leptond.errors import ShuttingDown
from leptond.scheduler import SchedulerOptions
from leptond.streaming import BlockingPool, LoopBridge, ResponseStream, wait_future
from leptond.types import FinishReason, GenerationSummary, StreamPacing, TokenChunk
from tests.integration.scheduler.conftest import PATIENCE_S, StartScheduler, request

Stream = ResponseStream[TokenChunk, GenerationSummary]


async def read(stream: Stream) -> list[list[TokenChunk]]:
    messages = []
    while chunks := await stream.next():
        messages.append(chunks)
    return messages


def token_ids(messages: list[list[TokenChunk]]) -> list[int]:
    return [token_id for chunks in messages for chunk in chunks for token_id in chunk.token_ids]


@pytest.mark.asyncio
async def test_sixteen_streams_share_the_wakeups_of_a_step(start: StartScheduler):
    bridge = LoopBridge(asyncio.get_running_loop())
    scheduler = start(FakeOptions(slots=16, context=256, mean_sentences=0), flush=bridge.flush)
    requests = [request(5 + i, max_tokens=40) for i in range(16)]
    streams: list[Stream] = [bridge.open_stream(StreamPacing()) for _ in requests]
    for one, stream in zip(requests, streams, strict=True):
        scheduler.submit(one, stream)
    answers = await asyncio.gather(*map(read, streams))
    for one, answer, stream in zip(requests, answers, streams, strict=True):
        truth = expected_tokens(one.prompt_ids, 40, FakeOptions(mean_sentences=0))
        assert token_ids(answer) == truth
        assert stream.final.finish_reason is FinishReason.LENGTH


@pytest.mark.asyncio
async def test_a_paced_stream_gathers_its_tokens(start: StartScheduler):
    bridge = LoopBridge(asyncio.get_running_loop())
    scheduler = start(flush=bridge.flush)
    stream: Stream = bridge.open_stream(StreamPacing(interval_tokens=4))
    scheduler.submit(request(max_tokens=21), stream)
    messages = await read(stream)
    assert len(token_ids(messages)) == 21
    assert all(len(chunks) >= 4 for chunks in messages[1:-1])


@pytest.mark.asyncio
async def test_a_timed_stream_gathers_its_tokens(start: StartScheduler):
    bridge = LoopBridge(asyncio.get_running_loop())
    fake = FakeOptions(slots=1, context=256, mean_sentences=0, tokens_per_s=500)
    scheduler = start(fake, flush=bridge.flush)
    stream: Stream = bridge.open_stream(StreamPacing(interval_tokens=0, interval_s=0.05))
    scheduler.submit(request(max_tokens=100), stream)
    messages, times = [], []
    while chunks := await stream.next():
        messages.append(chunks)
        times.append(time.monotonic())
    assert len(token_ids(messages)) == 100
    # All but the last, which the end sends.
    assert all(later - earlier > 0.045 for earlier, later in itertools.pairwise(times[:-1]))


@pytest.mark.asyncio
async def test_a_reader_that_stops_reading_and_starts_again_loses_nothing(start: StartScheduler):
    bridge = LoopBridge(asyncio.get_running_loop())
    scheduler = start(flush=bridge.flush)
    stream: Stream = bridge.open_stream(StreamPacing(), max_buffered=8)
    slow_request = request(max_tokens=100)
    scheduler.submit(slow_request, stream)
    first = await stream.next()
    mate: Stream = bridge.open_stream(StreamPacing())
    scheduler.submit(request(max_tokens=300), mate)
    await read(mate)
    assert stream.with_writer_since is not None
    truth = expected_tokens(slow_request.prompt_ids, 100, FakeOptions(mean_sentences=0))
    assert token_ids([first, *await read(stream)]) == truth


@pytest.mark.asyncio
async def test_a_thousand_streams_opened_and_dropped_leave_nothing_behind(start: StartScheduler):
    bridge = LoopBridge(asyncio.get_running_loop())
    scheduler = start(options=SchedulerOptions(max_queued=2_000), flush=bridge.flush)
    streams: list[Stream] = [bridge.open_stream(StreamPacing()) for _ in range(1_000)]
    for stream in streams:
        scheduler.submit(request(8, max_tokens=1_000), stream)

    async def drop(stream: Stream, *, after_first: bool) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                if after_first:
                    await stream.next()
        finally:
            stream.cancel()

    await asyncio.gather(*(drop(s, after_first=i % 3 == 0) for i, s in enumerate(streams)))
    watched = [weakref.ref(streams.pop()) for _ in range(1_000)]
    del stream
    assert await asyncio.to_thread(scheduler.wait_until_idle, PATIENCE_S)
    load = scheduler.load()
    assert (load.num_queued, load.num_running, load.kv_tokens) == (0, 0, 0)
    await asyncio.sleep(0)  # the last flush
    gc.collect()
    assert not [reference for reference in watched if reference() is not None]


def test_a_loop_that_was_closed_under_its_worker_harms_nothing(start: StartScheduler):
    loop = asyncio.new_event_loop()
    bridge = LoopBridge(loop)
    scheduler = start(flush=bridge.flush)
    stream: Stream = bridge.open_stream(StreamPacing())
    loop.close()
    scheduler.submit(request(max_tokens=50), stream)
    assert scheduler.wait_until_idle(PATIENCE_S)
    assert scheduler.failure is None


# --------------------------------------------------------------------------- futures and threads
@pytest.mark.asyncio
async def test_a_threads_future_can_be_awaited():
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    thread = threading.Thread(target=future.set_result, args=(7,))
    thread.start()
    assert await wait_future(future) == 7
    thread.join()
    assert await wait_future(future) == 7


@pytest.mark.asyncio
async def test_a_threads_error_is_raised():
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    future.set_exception(ShuttingDown("over"))
    with pytest.raises(ShuttingDown):
        await wait_future(future)


@pytest.mark.asyncio
async def test_who_gives_up_waiting_leaves_the_future_to_the_others():
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    impatient = asyncio.create_task(wait_future(future))
    patient = asyncio.create_task(wait_future(future))
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    assert not future.cancelled()
    future.set_result(7)
    assert await patient == 7


def _loop_that_waited_for(future: concurrent.futures.Future[int]) -> asyncio.AbstractEventLoop:
    """A closed loop on which a task began to wait and was cancelled."""
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(wait_future(future))
    loop.run_until_complete(asyncio.sleep(0))
    waiting.cancel()
    loop.run_until_complete(asyncio.gather(waiting, return_exceptions=True))
    return loop


def test_a_future_may_finish_after_its_waiters_loop(caplog):
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    _loop_that_waited_for(future).close()
    future.set_result(7)
    assert not caplog.records


def test_another_failure_of_the_loop_is_reported(caplog, monkeypatch):
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    loop = _loop_that_waited_for(future)

    def fail(*_: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(loop, "call_soon_threadsafe", fail)
    future.set_result(7)
    loop.close()
    assert "something else" in caplog.text


@pytest.mark.asyncio
async def test_blocking_calls_run_on_named_threads_in_the_callers_context():
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("mine")
    pool = BlockingPool(1, name="test-pool")
    try:
        name = await pool.run(lambda: threading.current_thread().name)
        assert name.startswith("test-pool")
        assert await pool.run(variable.get) == "mine"
        assert await pool.run(int, "ff", base=16) == 255
    finally:
        pool.shutdown()
    with pytest.raises(ShuttingDown):
        await pool.run(int)


@pytest.mark.asyncio
async def test_an_error_of_a_blocking_call_is_raised():
    pool = BlockingPool(1)
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0)
    pool.shutdown()
