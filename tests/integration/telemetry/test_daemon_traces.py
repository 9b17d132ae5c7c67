"""The whole daemon, in the test's loop, seen by a real collector."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import grpc
import pytest
import uvloop

from leptond.backend.fake import FakeOptions
from leptond.config import load_config
from leptond.daemon import Daemon, daemon_options
from leptond.host import HostEnvironment, Notifier, StopSignals
from leptond.telemetry import Telemetry
from leptond.v1 import chat_pb2, message_pb2, text_generation_service_pb2_grpc

METHOD = "leptond.v1.TextGenerationService/ChatStream"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
TRACEPARENT = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"),)
PHASES = ["tokenize", "queue", "prefill", "decode", "deliver"]
SECRET = "correct horse battery staple"

Stub = Any  # gRPC has one class for both kinds of channel; this one is awaited


def request() -> chat_pb2.ChatStreamRequest:
    made = chat_pb2.ChatStreamRequest(model="toy")
    message = made.input.messages.add(role=message_pb2.ROLE_USER)
    message.content.add(text=SECRET)
    made.options.request_id = "mine"
    made.sampling.max_tokens = 40
    made.sampling.temperature = 0.5
    made.sampling.seed = 7
    return made


@asynccontextmanager
async def serving(directory, telemetry: Telemetry) -> AsyncIterator[Stub]:
    """A daemon with a fake model whose steps take time, and a stub to it."""
    address = f"unix:{directory / 'leptond.sock'}"
    environ = {"RUNTIME_DIRECTORY": str(directory), "STATE_DIRECTORY": str(directory)}
    config = load_config(None, environ, {"server.listen": [address]}).config
    fake = FakeOptions(tokens_per_s=500.0, mean_sentences=0)
    options = daemon_options(config, HostEnvironment.read(environ), [("toy", fake)])
    ready = asyncio.Event()
    async with StopSignals() as signals:
        daemon = Daemon(
            options,
            telemetry=telemetry,
            notifier=Notifier(""),
            watchdog_interval_s=None,
            signals=signals,
            announce=lambda text: ready.set(),
        )
        running = asyncio.create_task(daemon.run())
        await asyncio.wait_for(ready.wait(), 20)
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                yield text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
        finally:  # also after a failure: a loop that ends under a gRPC server crashes the process
            os.kill(os.getpid(), signal.SIGTERM)
            assert await asyncio.wait_for(running, 20)


@pytest.fixture
def run_daemon(tmp_path) -> Callable[..., None]:
    """Serve, let `work(stub)` call, stop. The daemon's stop flushes telemetry."""

    def run(telemetry: Telemetry, work: Callable[[Stub], Awaitable[None]]) -> None:
        async def main() -> None:
            async with serving(tmp_path, telemetry) as stub:
                await work(stub)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    return run


def test_a_streamed_chat_is_traced_from_end_to_end(receiver, protocol, configure, run_daemon):
    trailers: dict[str, Any] = {}

    async def work(stub: Stub) -> None:
        call = stub.ChatStream(request(), metadata=TRACEPARENT)
        answers = [answer async for answer in call]
        assert answers[-1].HasField("info")
        trailers.update(await call.trailing_metadata())

    run_daemon(configure(endpoint=receiver.endpoint, protocol=protocol), work)
    spans = {span.name: span for span in receiver.spans if span.trace_id == TRACE_ID}
    assert set(spans) == {METHOD, "chat toy:fake", *PHASES}
    server, inference = spans[METHOD], spans["chat toy:fake"]
    phases = [spans[name] for name in PHASES]
    assert (server.kind, server.parent_id) == ("SERVER", PARENT_ID)
    assert (inference.kind, inference.parent_id) == ("INTERNAL", server.span_id)
    assert {phase.parent_id for phase in phases} == {inference.span_id}
    assert all(a.end_ns == b.start_ns for a, b in pairwise(phases))
    total_ns = sum(phase.duration_ns for phase in phases)
    assert total_ns == pytest.approx(inference.duration_ns, rel=0.05)
    assert spans["decode"].duration_ns > 30 * 2_000_000  # the engine's 2 ms per step
    assert server.start_ns <= inference.start_ns
    assert inference.end_ns <= server.end_ns

    assert server.attributes["rpc.response.status_code"] == "OK"
    assert server.attributes["leptond.request.label"] == "mine"
    assert server.attributes["leptond.request.id"] == trailers["x-request-id"]
    assert trailers["x-trace-id"] == TRACE_ID
    assert inference.attributes["gen_ai.operation.name"] == "chat"
    assert inference.attributes["gen_ai.request.temperature"] == 0.5
    assert inference.attributes["gen_ai.request.seed"] == 7
    assert inference.attributes["gen_ai.request.stream"] is True
    assert inference.attributes["gen_ai.usage.output_tokens"] == 40
    (first,) = receiver.wait_for_metric("gen_ai.server.time_to_first_token")
    assert first.attributes["gen_ai.request.model"] == "toy:fake"


def test_no_text_leaves_with_the_telemetry(receiver, protocol, configure, run_daemon):
    async def work(stub: Stub) -> None:
        async for _ in stub.ChatStream(request()):
            pass

    run_daemon(configure(endpoint=receiver.endpoint, protocol=protocol), work)
    assert receiver.spans
    everything = f"{receiver.spans} {receiver.points}"
    assert not any(word in everything for word in SECRET.split())


def test_a_refused_call_has_a_span_and_no_inference(receiver, protocol, configure, run_daemon):
    async def work(stub: Stub) -> None:
        wrong = request()
        wrong.model = "nobody"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ChatStream(wrong, metadata=TRACEPARENT).read()
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    run_daemon(configure(endpoint=receiver.endpoint, protocol=protocol), work)
    (span,) = [span for span in receiver.spans if span.trace_id == TRACE_ID]
    assert span.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert span.attributes["leptond.error.code"] == "MODEL_NOT_FOUND"
    assert span.status == "UNSET"
    labels = [point.attributes for point in receiver.points]
    assert "nobody" not in str(labels)


def test_a_cancelled_call_keeps_what_it_did(receiver, protocol, configure, run_daemon):
    async def work(stub: Stub) -> None:
        call = stub.ChatStream(request(), metadata=TRACEPARENT)
        await call.read()
        call.cancel()

    run_daemon(configure(endpoint=receiver.endpoint, protocol=protocol), work)
    spans = {span.name: span for span in receiver.spans if span.trace_id == TRACE_ID}
    assert spans[METHOD].attributes["rpc.response.status_code"] == "CANCELLED"
    assert spans[METHOD].status == "UNSET"
    inference = spans["chat toy:fake"]
    phases = [span for span in spans.values() if span.parent_id == inference.span_id]
    total_ns = sum(phase.duration_ns for phase in phases)
    assert total_ns == pytest.approx(inference.duration_ns, rel=0.05)
