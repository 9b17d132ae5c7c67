"""`python -m benchmarks.transport`: what gRPC costs, and what it leaves of the engine's speed.

Two questions, each at 1 and 16 streams and at one and four tokens per message, in alternating
rounds:

1. CPU per message. The engine is the fake one, which sleeps as long as a real step takes, so that
   the daemon's own work can be seen: the CPU of the daemon's process less that of the model's
   worker thread, which is what runs in process too, per message; against the CPU of a bare grpc.aio
   servicer that sends as many messages of the same size at the same pace.
2. Tokens per second kept. With a real model (`--model DIR`, a variant's folder in a store): through
   gRPC, client on the same cores, against the same work in process.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import click

from benchmarks.daemons import Server, running
from benchmarks.machine import cpu_seconds, describe_machine, thread_cpu_seconds

__all__ = ["main", "through_grpc"]

WORKER = "leptond-worker-"
STEPS_PER_S = 25.0  # about what 16 streams of a small model do on two cores


def _json_of(module: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.transport.{module}", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def through_grpc(
    server: Server, streams: int, tokens: int, model: str, tokens_per_message: int
) -> dict[str, float]:
    """One run of the client after a short one to warm up, with the server's CPU time."""

    def once(num_tokens: int) -> dict[str, float]:
        return _json_of(
            "client", server.address, f"--streams={streams}", f"--tokens={num_tokens}",
            f"--model={model}", f"--tokens-per-message={tokens_per_message}",
        )  # fmt: skip

    once(min(tokens, 8))  # connections, caches
    used, used_by_engine = cpu_seconds(server.pid), thread_cpu_seconds(server.pid, WORKER)
    result = once(tokens)
    result["cpu_s"] = cpu_seconds(server.pid) - used
    result["engine_cpu_s"] = thread_cpu_seconds(server.pid, WORKER) - used_by_engine
    return result


def cost_per_message(
    streams: int, tokens: int, tokens_per_message: int, rounds: int
) -> dict[str, float]:
    """CPU microseconds per message: the daemon's beyond its engine's, and a bare servicer's."""
    fake = f"fake:tokens_per_s={STEPS_PER_S},mean_sentences=0,context=4096,slots=16"
    bare_arguments = [
        f"--steps-per-s={STEPS_PER_S}",
        f"--tokens-per-message={tokens_per_message}",
    ]

    def daemon() -> float:
        serve = ["serve", "--listen=127.0.0.1:0", f"--fake-model={fake}"]
        with running("leptond", serve) as server:
            served = through_grpc(server, streams, tokens, "fake", tokens_per_message)
        return 1e6 * (served["cpu_s"] - served["engine_cpu_s"]) / served["messages"]

    def bare() -> float:
        with running("benchmarks.transport.bare", bare_arguments) as server:
            served = through_grpc(server, streams, tokens, "any", tokens_per_message)
        return 1e6 * served["cpu_s"] / served["messages"]

    daemon_us: list[float] = []
    bare_us: list[float] = []
    for number in range(rounds):
        # Whoever goes second in a round goes first in the next one.
        turns = [(daemon, daemon_us), (bare, bare_us)]
        for measure, found in turns if number % 2 == 0 else reversed(turns):
            found.append(measure())
    ratios = [ours / theirs for ours, theirs in zip(daemon_us, bare_us, strict=True)]
    return {
        "streams": streams,
        "tokens_per_message": tokens_per_message,
        "daemon_us": round(statistics.median(daemon_us), 1),
        "bare_us": round(statistics.median(bare_us), 1),
        "ratio": round(statistics.median(ratios), 3),
    }


def speed_kept(
    variant: Path, streams: int, tokens: int, tokens_per_message: int, rounds: int
) -> dict[str, float]:
    """Tokens per second in process and through gRPC, of a real model."""
    store, model = variant.parents[2], f"{variant.parents[1].name}:{variant.name}"
    inside, through, first = [], [], []
    for _ in range(rounds):
        alone = _json_of(
            "in_process", f"--streams={streams}", f"--tokens={tokens}", f"--model={variant}"
        )
        serve = ["serve", "--listen=127.0.0.1:0", f"--store={store}", f"--preload={model}"]
        with running("leptond", serve) as server:
            served = through_grpc(server, streams, tokens, model, tokens_per_message)
        inside.append(alone["tokens"] / alone["wall_s"])
        through.append(served["tokens"] / served["wall_s"])
        first.append(served["first_token_s"])
    return {
        "streams": streams,
        "tokens_per_message": tokens_per_message,
        "in_process_tokens_per_s": round(statistics.median(inside), 1),
        "grpc_tokens_per_s": round(statistics.median(through), 1),
        "kept": round(statistics.median(t / i for t, i in zip(through, inside, strict=True)), 3),
        "first_token_s": round(statistics.median(first), 3),
    }


@click.command
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--tokens", type=int, default=400, show_default=True)
@click.option("--model", type=click.Path(path_type=Path, exists=True), help="A variant's folder.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the results there as JSON.")
def main(rounds: int, tokens: int, model: Path | None, out: Path | None) -> None:
    """Measure; nothing else may run on the machine meanwhile."""
    cases = [(streams, per_message) for streams in (1, 16) for per_message in (1, 4)]
    cost = []
    for streams, per_message in cases:
        cost.append(cost_per_message(streams, tokens, per_message, rounds))
        print(json.dumps(cost[-1]), flush=True)
    speed = []
    if model is not None:
        for streams, per_message in cases:
            speed.append(speed_kept(model, streams, tokens, per_message, rounds))
            print(json.dumps(speed[-1]), flush=True)
    if out is not None:
        report = {"machine": describe_machine(), "cost_per_message": cost, "speed_kept": speed}
        out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
