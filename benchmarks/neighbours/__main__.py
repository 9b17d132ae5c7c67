"""`python -m benchmarks.neighbours --model CHAT --embedder EMBEDDER`: a chat beside bulk work.

One chat stream on ONNX Runtime, alone and while another client embeds texts in bulk with
CTranslate2, in alternating rounds; the gap between its tokens, median and 95th percentile.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import grpc

from benchmarks.daemons import running
from benchmarks.machine import describe_machine
from leptond.v1 import generation_pb2, sampling_pb2, text_generation_service_pb2_grpc

__all__ = ["main"]

_PROMPT = "Tell me a long story about the sea. "


def _gaps(address: str, model: str, tokens: int) -> list[float]:
    """Milliseconds between the messages of one stream, the first token apart."""
    request = generation_pb2.GenerateStreamRequest(
        model=model,
        input=generation_pb2.GenerationInput(text=_PROMPT),
        sampling=sampling_pb2.SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True),
    )
    with grpc.insecure_channel(address) as channel:
        stub = text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
        moments = [time.monotonic() for _ in stub.GenerateStream(request)]
    return [1000 * (after - before) for before, after in itertools.pairwise(moments)]


def _name(variant: Path) -> str:
    return f"{variant.parents[1].name}:{variant.name}"


@click.command
@click.option("--model", "chat", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--embedder", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--tokens", type=int, default=200, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the results there as JSON.")
def main(chat: Path, embedder: Path, rounds: int, tokens: int, out: Path | None) -> None:
    """Measure; nothing else may run on the machine meanwhile."""
    serve = ["serve", "--listen=127.0.0.1:0"]
    serve += sorted({f"--store={variant.parents[2]}" for variant in (chat, embedder)})
    serve += [f"--preload={_name(variant)}" for variant in (chat, embedder)]
    found: dict[str, list[list[float]]] = {"alone": [], "beside": []}
    bulk_speeds = []
    with running("leptond", serve) as server:
        _gaps(server.address, _name(chat), 20)
        for number in range(rounds):
            for mode in ("alone", "beside") if number % 2 == 0 else ("beside", "alone"):
                bulk = None
                if mode == "beside":
                    bulk = subprocess.Popen(
                        [sys.executable, "-m", "benchmarks.neighbours.bulk", server.address,
                         f"--model={_name(embedder)}"],
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                    )  # fmt: skip
                    if bulk.stdout is not None:
                        bulk.stdout.readline()  # it has its first results
                found[mode].append(_gaps(server.address, _name(chat), tokens))
                if bulk is not None:
                    said, _ = bulk.communicate()
                    bulk_speeds.append(float(json.loads(said)["texts_per_s"]))
    report: dict[str, object] = {"bulk_texts_per_s": statistics.median(bulk_speeds)}
    for mode, rounds_of in found.items():
        flat = [gap for gaps in rounds_of for gap in gaps]
        report[mode] = {
            "median_ms": round(statistics.median(flat), 2),
            "p95_ms": round(statistics.quantiles(flat, n=20)[-1], 2),
            "mean_ms": round(statistics.fmean(flat), 2),
        }
    ratios = [
        statistics.median(beside) / statistics.median(alone)
        for beside, alone in zip(found["beside"], found["alone"], strict=True)
    ]
    means = [
        statistics.fmean(beside) / statistics.fmean(alone)
        for beside, alone in zip(found["beside"], found["alone"], strict=True)
    ]
    report["median_ratio"] = round(statistics.median(ratios), 2)
    report["mean_ratio"] = round(statistics.median(means), 2)
    print(json.dumps(report))
    if out is not None:
        whole = {"machine": describe_machine(), "chat": _name(chat), "embedder": _name(embedder)}
        out.write_text(json.dumps({**whole, **report}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
