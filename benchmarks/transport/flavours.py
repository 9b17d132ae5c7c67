"""`python -m benchmarks.transport.flavours`: grpc.aio with uvloop against the threaded server.

Alternating rounds: CPU per message of 16 and 64 paced streams, and unary calls per second with 8
callers. The decision that rests on it is `docs/adr/0005-transport.md`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

import click
import grpc
import uvloop

from benchmarks.daemons import Server, running
from benchmarks.machine import cpu_seconds, describe_machine
from benchmarks.transport.__main__ import through_grpc
from leptond.v1 import generation_pb2, text_generation_service_pb2_grpc

__all__ = ["main"]

_CALLERS = 8
_CALLS_EACH = 300


async def _unary(server: Server) -> dict[str, float]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
        request = generation_pb2.GenerateRequest(
            model="any", input=generation_pb2.GenerationInput(text="x" * 200)
        )

        async def caller() -> None:
            for _ in range(_CALLS_EACH):
                await stub.Generate(request)

        used, began = cpu_seconds(server.pid), time.monotonic()
        await asyncio.gather(*(caller() for _ in range(_CALLERS)))
        num_calls = _CALLERS * _CALLS_EACH
        return {
            "calls_per_s": num_calls / (time.monotonic() - began),
            "call_us": 1e6 * (cpu_seconds(server.pid) - used) / num_calls,
        }


def _measure(flavour: str, tokens: int) -> dict[str, float]:
    with running("benchmarks.transport.flavour_server", [flavour]) as server:
        found = uvloop.run(_unary(server))
        for streams in (16, 64):
            result = through_grpc(server, streams, tokens, "any", 1)
            found[f"message_us_{streams}"] = 1e6 * result["cpu_s"] / result["messages"]
    return found


@click.command
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--tokens", type=int, default=100, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the results there as JSON.")
def main(rounds: int, tokens: int, out: Path | None) -> None:
    """Measure; nothing else may run on the machine meanwhile."""
    found: dict[str, list[dict[str, float]]] = {"aio": [], "sync": []}
    for _ in range(rounds):
        for flavour, results in found.items():
            results.append(_measure(flavour, tokens))
    report = {
        flavour: {
            key: round(statistics.median(result[key] for result in results), 1)
            for key in results[0]
        }
        for flavour, results in found.items()
    }
    print(json.dumps(report))
    if out is not None:
        whole = {"machine": describe_machine(), **report}
        out.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
