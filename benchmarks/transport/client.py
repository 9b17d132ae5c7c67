"""The client of the benchmark: so many streams at once, in a process of its own.

`python -m benchmarks.transport.client ADDRESS --streams 16 --tokens 400 --model fake`
prints one JSON line: messages, tokens, wall seconds, median time to first token.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any

import click
import grpc
import uvloop

from leptond.v1 import generation_pb2, sampling_pb2, text_generation_service_pb2_grpc

__all__ = ["main"]


async def _one(
    stub: text_generation_service_pb2_grpc.TextGenerationServiceAsyncStub,
    request: generation_pb2.GenerateStreamRequest,
) -> tuple[int, int, float]:
    began = time.monotonic()
    first_s = 0.0
    num_messages = num_tokens = 0
    async for message in stub.GenerateStream(request):
        if not num_messages:
            first_s = time.monotonic() - began
        num_messages += 1
        num_tokens += len(message.chunk.token_ids)
    return num_messages, num_tokens, first_s


async def _run(
    address: str, *, streams: int, tokens: int, model: str, tokens_per_message: int, prompt: str
) -> dict[str, float]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: text_generation_service_pb2_grpc.TextGenerationServiceAsyncStub = (
            text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
        )
        requests = [
            generation_pb2.GenerateStreamRequest(
                model=model,
                input=generation_pb2.GenerationInput(text=f"{prompt}{number}"),
                sampling=sampling_pb2.SamplingParams(
                    temperature=0, max_tokens=tokens, ignore_eos=True
                ),
                stream=generation_pb2.StreamOptions(stream_interval_tokens=tokens_per_message),
            )
            for number in range(streams)
        ]
        began = time.monotonic()
        answers = await asyncio.gather(*(_one(stub, request) for request in requests))
        wall_s = time.monotonic() - began
    return {
        "messages": sum(messages for messages, _, _ in answers),
        "tokens": sum(num for _, num, _ in answers),
        "wall_s": wall_s,
        "first_token_s": statistics.median(first for _, _, first in answers),
    }


@click.command
@click.argument("address")
@click.option("--streams", type=int, required=True)
@click.option("--tokens", type=int, required=True)
@click.option("--model", required=True)
@click.option("--tokens-per-message", type=int, default=1)
@click.option("--prompt", default="Tell me a long story about the sea. ")
def main(address: str, **work: Any) -> None:
    """Open the streams, read them to their ends, print one JSON line."""
    result = uvloop.run(_run(address, **work))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
