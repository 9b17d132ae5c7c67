"""One service on grpc.aio with uvloop, or on gRPC's threaded server, behind equal wrappers.

`python -m benchmarks.transport.flavour_server aio|sync --steps-per-s 25`; the first line of output
is the address. Both tell the same story as the daemon: a worker thread makes a token for every
stream in each step and hands it over; a call gets an id, its metadata is read, its deadline is
looked up, its initial metadata is sent, its end is logged.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
import grpc
import uvloop

from leptond.server.calls import Call, CallRunner
from leptond.streaming import LoopBridge
from leptond.telemetry import Telemetry
from leptond.types import StreamPacing
from leptond.v1 import generation_pb2

__all__ = ["main"]

SERVICE = "leptond.v1.TextGenerationService"
_MAX_THREADS = 64


class Worker:
    """Pushes one message into every open sink, so many times a second."""

    def __init__(self, steps_per_s: float, flush: Any) -> None:
        self._interval_s = 1 / steps_per_s
        self._flush = flush
        self._lock = threading.Lock()
        self._sinks: dict[Any, int] = {}
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, sink: Any, num_tokens: int) -> None:
        with self._lock:
            self._sinks[sink] = num_tokens

    def _run(self) -> None:
        while True:
            time.sleep(self._interval_s)
            with self._lock:
                for sink in list(self._sinks):
                    sink.push(b"abcd")
                    self._sinks[sink] -= 1
                    if not self._sinks[sink]:
                        del self._sinks[sink]
                        sink.finish("stop")
            self._flush()


def _message(offset: int) -> generation_pb2.GenerateStreamResponse:
    return generation_pb2.GenerateStreamResponse(
        chunk=generation_pb2.TokenChunk(
            text="abcd", token_ids=[101], token_bytes=[b"abcd"], token_offset=offset
        )
    )


class _QueueSink:
    """The threaded server's stream: a queue that a generator empties."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def push(self, item: bytes) -> None:
        self._items.put(item)

    def finish(self, final: object) -> None:
        del final
        self._items.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (item := self._items.get()) is not None:
            yield item


async def _serve_aio(steps_per_s: float) -> None:
    bridge = LoopBridge(asyncio.get_running_loop())
    worker = Worker(steps_per_s, bridge.flush)
    runner = CallRunner(Telemetry(), max_response_bytes=64 << 20)

    async def stream(request: generation_pb2.GenerateStreamRequest, call: Call) -> None:
        sink = bridge.open_stream(StreamPacing())
        worker.submit(sink, request.sampling.max_tokens)
        await call.commit()
        num_sent = 0
        while items := await sink.next():
            await call.write(_message(num_sent))
            num_sent += len(items)

    async def unary(
        request: generation_pb2.GenerateRequest, call: Call
    ) -> generation_pb2.GenerateResponse:
        await call.commit()
        return generation_pb2.GenerateResponse(
            choices=[generation_pb2.GenerationChoice(text=request.input.text)]
        )

    handlers = {
        "GenerateStream": runner.handler(
            SERVICE, "GenerateStream", stream, generation_pb2.GenerateStreamRequest,
            generation_pb2.GenerateStreamResponse, request_streaming=False, response_streaming=True,
        ),
        "Generate": runner.handler(
            SERVICE, "Generate", unary, generation_pb2.GenerateRequest,
            generation_pb2.GenerateResponse, request_streaming=False, response_streaming=False,
        ),
    }  # fmt: skip
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def _serve_sync(steps_per_s: float) -> None:
    worker = Worker(steps_per_s, lambda: None)
    telemetry = Telemetry()

    def begin(method: str, context: Any) -> Any:
        call_id = secrets.token_hex(8)
        context.time_remaining()
        record = telemetry.start_call(
            f"{SERVICE}/{method}", context.invocation_metadata(), request_id=call_id
        )
        context.send_initial_metadata((("x-request-id", call_id),))
        return record

    def stream(request: Any, context: Any) -> Iterator[generation_pb2.GenerateStreamResponse]:
        record = begin("GenerateStream", context)
        sink = _QueueSink()
        worker.submit(sink, request.sampling.max_tokens)
        for number, _ in enumerate(sink):
            yield _message(number)
        record.end("OK")

    def unary(request: Any, context: Any) -> generation_pb2.GenerateResponse:
        record = begin("Generate", context)
        record.end("OK")
        return generation_pb2.GenerateResponse(
            choices=[generation_pb2.GenerationChoice(text=request.input.text)]
        )

    methods: dict[str, Any] = {
        "GenerateStream": grpc.unary_stream_rpc_method_handler(
            stream,
            request_deserializer=generation_pb2.GenerateStreamRequest.FromString,
            response_serializer=generation_pb2.GenerateStreamResponse.SerializeToString,
        ),
        "Generate": grpc.unary_unary_rpc_method_handler(
            unary,
            request_deserializer=generation_pb2.GenerateRequest.FromString,
            response_serializer=generation_pb2.GenerateResponse.SerializeToString,
        ),
    }
    server = grpc.server(ThreadPoolExecutor(_MAX_THREADS))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


@click.command
@click.argument("flavour", type=click.Choice(["aio", "sync"]))
@click.option("--steps-per-s", type=float, default=25.0)
def main(flavour: str, steps_per_s: float) -> None:
    """Serve until terminated."""
    logging.disable(logging.INFO)
    if flavour == "aio":
        uvloop.run(_serve_aio(steps_per_s))
    else:
        _serve_sync(steps_per_s)


if __name__ == "__main__":
    main()
