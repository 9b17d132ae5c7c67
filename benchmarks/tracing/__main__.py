"""`python -m benchmarks.tracing --model DIR`: 16 streams of a real model, tracing on and off.

Alternating rounds; with tracing on, every span goes to a real OTLP receiver in another process.
"""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path

import click

from benchmarks.daemons import running
from benchmarks.machine import describe_machine
from benchmarks.transport.__main__ import through_grpc

__all__ = ["main"]


@click.command
@click.option("--model", "variant", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--streams", type=int, default=16, show_default=True)
@click.option("--tokens", type=int, default=64, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the results there as JSON.")
def main(variant: Path, rounds: int, streams: int, tokens: int, out: Path | None) -> None:
    """Measure; nothing else may run on the machine meanwhile."""
    store, model = variant.parents[2], f"{variant.parents[1].name}:{variant.name}"
    serve = ["serve", "--listen=127.0.0.1:0", f"--store={store}", f"--preload={model}"]
    speeds: dict[str, list[float]] = {"off": [], "on": []}
    for number in range(rounds):
        # Whoever goes second in a round goes first in the next one.
        for mode, found in sorted(speeds.items(), reverse=number % 2 == 1):
            with running("benchmarks.tracing.receiver", []) as receiver:
                environ = dict(os.environ)
                if mode == "on":
                    environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{receiver.address}"
                with running("leptond", serve, environ) as server:
                    result = through_grpc(server, streams, tokens, model, 1)
            found.append(result["tokens"] / result["wall_s"])
            print(json.dumps({"tracing": mode, "tokens_per_s": round(found[-1], 1)}), flush=True)
    ratios = [on / off for on, off in zip(speeds["on"], speeds["off"], strict=True)]
    report = {
        "streams": streams,
        "tokens_per_s": {
            mode: round(statistics.median(found), 1) for mode, found in speeds.items()
        },
        "kept": round(statistics.median(ratios), 4),
    }
    print(json.dumps(report))
    if out is not None:
        whole = {"machine": describe_machine(), "model": model, **report}
        out.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
