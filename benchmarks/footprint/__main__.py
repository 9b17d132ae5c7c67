"""`python -m benchmarks.footprint --model DIR`: time to READY, and memory over 200 mixed requests.

READY is what the service manager would get: a datagram on a NOTIFY_SOCKET. The requests are
generations and chats of many lengths, greedy and sampled, up to eight at once, some cancelled.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import grpc

from benchmarks.daemons import Server, running
from benchmarks.machine import describe_machine, resident_bytes
from leptond.v1 import (
    chat_pb2,
    generation_pb2,
    message_pb2,
    sampling_pb2,
    text_generation_service_pb2_grpc,
)

__all__ = ["main"]

_WORDS = [
    "the",
    "sea",
    "and",
    "a",
    "boat",
    "came",
    "home",
    "before",
    "night",
    "fell",
    "on",
    "every",
    "quiet",
    "street",
    "of",
    "town",
]


def _request(model: str, chance: random.Random) -> tuple[str, Any]:
    text = " ".join(chance.choices(_WORDS, k=chance.choice([3, 20, 100, 400])))
    sampling = sampling_pb2.SamplingParams(
        temperature=chance.choice([0.0, 0.8, 1.2]), max_tokens=chance.choice([4, 16, 64])
    )
    if chance.random() < 0.5:
        source = generation_pb2.GenerationInput(text=text)
        return "GenerateStream", generation_pb2.GenerateStreamRequest(
            model=model, input=source, sampling=sampling
        )
    part = message_pb2.ContentPart(text=text)
    message = message_pb2.Message(role=message_pb2.ROLE_USER, content=[part])
    return "ChatStream", chat_pb2.ChatStreamRequest(
        model=model, input=chat_pb2.ChatInput(messages=[message]), sampling=sampling
    )


async def _mixed(server: Server, model: str, count: int, chance: random.Random) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
        limit = asyncio.Semaphore(8)

        async def one() -> None:
            method, request = _request(model, chance)
            is_cancelled = chance.random() < 0.1
            async with limit:
                call = getattr(stub, method)(request)
                with suppress(asyncio.CancelledError):
                    async for _ in call:
                        if is_cancelled:
                            call.cancel()

        await asyncio.gather(*(one() for _ in range(count)))


def _seconds_to_ready(serve: list[str]) -> float:
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
    ):
        path = f"{directory}/notify"
        notify.bind(path)
        notify.settimeout(60)
        began = time.monotonic()
        with running("leptond", serve, {**os.environ, "NOTIFY_SOCKET": path}):
            while b"READY=1" not in notify.recv(4096).split(b"\n"):
                pass
            return time.monotonic() - began


@click.command
@click.option("--model", "variant", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--rounds", type=int, default=5, show_default=True, help="Starts to time.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the results there as JSON.")
def main(variant: Path, rounds: int, out: Path | None) -> None:
    """Measure; nothing else may run on the machine meanwhile."""
    store, model = variant.parents[2], f"{variant.parents[1].name}:{variant.name}"
    serve = ["serve", "--listen=127.0.0.1:0", f"--store={store}", f"--preload={model}"]
    ready = [_seconds_to_ready(serve) for _ in range(rounds)]
    chance = random.Random(1)
    with running("leptond", serve) as server:
        asyncio.run(_mixed(server, model, 20, chance))
        first = resident_bytes(server.pid)
        asyncio.run(_mixed(server, model, 180, chance))
        last = resident_bytes(server.pid)
    report = {
        "ready_s": {"median": round(statistics.median(ready), 2), "max": round(max(ready), 2)},
        "resident_mib": {"after_20": first >> 20, "after_200": last >> 20},
        "growth": round(last / first - 1, 4),
    }
    print(json.dumps(report))
    if out is not None:
        whole = {"machine": describe_machine(), "model": model, **report}
        out.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
