"""A bare grpc.aio servicer: the same messages as the daemon's, the same pace, and nothing else.

`python -m benchmarks.transport.bare --steps-per-s 20 --tokens-per-message 1`

Every stream gets a prepared message per step (or per four steps). The pace is that of an engine
which makes one token for each stream in every step: one tick wakes all streams.
"""

from __future__ import annotations

import asyncio
from typing import Any

import click
import grpc
import uvloop

from leptond.v1 import generation_pb2

__all__ = ["main"]


class Ticker:
    """One tick per step for all streams, as a worker's flush is one wake-up for all."""

    def __init__(self, steps_per_s: float) -> None:
        self._interval_s = 1 / steps_per_s
        self._tick = asyncio.Event()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            tick, self._tick = self._tick, asyncio.Event()
            tick.set()

    async def wait(self) -> None:
        await self._tick.wait()


class Servicer:
    """Writes prepared messages."""

    def __init__(self, ticker: Ticker, tokens_per_message: int) -> None:
        self._ticker = ticker
        self._tokens_per_message = tokens_per_message
        self._message = generation_pb2.GenerateStreamResponse(
            chunk=generation_pb2.TokenChunk(
                text="abcd" * tokens_per_message,
                token_ids=[101] * tokens_per_message,
                token_bytes=[b"abcd"] * tokens_per_message,
                token_offset=100,
            )
        )

    async def generate_stream(
        self, request: generation_pb2.GenerateStreamRequest, context: Any
    ) -> None:
        """As many tokens as were asked for."""
        num_sent = 0
        while num_sent < request.sampling.max_tokens:
            for _ in range(self._tokens_per_message):
                await self._ticker.wait()
            num_sent += self._tokens_per_message
            await context.write(self._message)


async def _serve(steps_per_s: float, tokens_per_message: int) -> None:
    ticker = Ticker(steps_per_s)
    handler: Any = grpc.unary_stream_rpc_method_handler(
        Servicer(ticker, tokens_per_message).generate_stream,
        request_deserializer=generation_pb2.GenerateStreamRequest.FromString,
        response_serializer=generation_pb2.GenerateStreamResponse.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "leptond.v1.TextGenerationService", {"GenerateStream": handler}
            ),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    ticking = asyncio.create_task(ticker.run())
    await server.wait_for_termination()
    ticking.cancel()


@click.command
@click.option("--steps-per-s", type=float, required=True)
@click.option("--tokens-per-message", type=int, required=True)
def main(steps_per_s: float, tokens_per_message: int) -> None:
    """Serve until terminated; the first line of output is the address."""
    uvloop.run(_serve(steps_per_s, tokens_per_message))


if __name__ == "__main__":
    main()
