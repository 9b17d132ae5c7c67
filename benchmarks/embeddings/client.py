"""The client of the benchmark: so many callers at once, in a process of its own.

`python -m benchmarks.embeddings.client ADDRESS --model NAME` prints one JSON line. Each caller
sends its share of the texts again and again, in one message, as soon as it has the answer.
"""

from __future__ import annotations

import asyncio
import json
import time

import click
import grpc
import uvloop

from benchmarks.embeddings.texts import mixed_texts
from leptond.v1 import common_pb2, embedding_pb2, embedding_pb2_grpc

__all__ = ["main"]


async def _run(address: str, model: str, callers: int, seconds: float) -> dict[str, float]:
    texts = mixed_texts()
    async with grpc.aio.insecure_channel(address) as channel:
        stub: embedding_pb2_grpc.EmbeddingServiceAsyncStub = (
            embedding_pb2_grpc.EmbeddingServiceStub(channel)
        )
        num_done = 0

        async def call_until(end: float, number: int) -> None:
            nonlocal num_done
            request = embedding_pb2.EmbedRequest(
                model=model,
                texts=texts[number::callers],
                embedding=embedding_pb2.EmbedOptions(truncation=common_pb2.Truncation()),
            )
            while time.monotonic() < end:
                answer = await stub.Embed(request)
                num_done += answer.embeddings.num_vectors

        async def all_callers(duration_s: float) -> float:
            nonlocal num_done
            num_done = 0
            began = time.monotonic()
            await asyncio.gather(
                *(call_until(began + duration_s, number) for number in range(callers))
            )
            return num_done / (time.monotonic() - began)

        await all_callers(1.0)
        return {"callers": callers, "texts_per_s": round(await all_callers(seconds), 1)}


@click.command
@click.argument("address")
@click.option("--model", required=True)
@click.option("--callers", type=int, default=8, show_default=True)
@click.option("--seconds", type=float, default=8.0, show_default=True)
def main(address: str, model: str, callers: int, seconds: float) -> None:
    """Call for so many seconds, after one to warm up; print one JSON line."""
    print(json.dumps(uvloop.run(_run(address, model, callers, seconds))))


if __name__ == "__main__":
    main()
