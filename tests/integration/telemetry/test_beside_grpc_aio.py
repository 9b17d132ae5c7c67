"""The exporter's own gRPC channel next to a grpc.aio server, on uvloop, in one process."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import grpc
import pytest
import uvloop

from tests.fixtures.otlp_receiver import otlp_receiver

NUM_CALLS = 200
METHOD = "/test.Echo/Say"


@pytest.fixture
def receiver():
    with otlp_receiver("grpc") as running:
        yield running


def test_calls_are_traced_and_the_export_is_not(receiver, configure):
    telemetry = configure(endpoint=receiver.endpoint)
    ids: set[str | None] = set()

    async def say(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        call = telemetry.start_call(
            METHOD, context.invocation_metadata(), request_id=request.decode(), peer=context.peer()
        )
        ids.add(call.trace_id)
        await asyncio.sleep(0)
        call.end("OK")
        return request

    handler = grpc.method_handlers_generic_handler(
        "test.Echo", {"Say": grpc.unary_unary_rpc_method_handler(say)}
    )

    async def serve() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([handler])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            calls = [echo(b"%d" % n) for n in range(NUM_CALLS)]
            # A child process, while both kinds of gRPC have threads.
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", "print('alive')")
            assert await asyncio.gather(*calls) == [b"%d" % n for n in range(NUM_CALLS)]
            assert await child.wait() == 0
        await server.stop(None)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 0
    assert telemetry.shutdown()
    spans = receiver.spans
    assert len(spans) == NUM_CALLS
    assert {span.name for span in spans} == {"test.Echo/Say"}
    assert {span.trace_id for span in spans} == ids
    assert {span.attributes["network.peer.address"] for span in spans} == {"127.0.0.1"}
