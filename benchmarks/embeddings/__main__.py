"""`python -m benchmarks.embeddings --model VARIANT`: what serving leaves of the library's speed.

64 texts of mixed length, 8 callers, client on the same cores, in alternating rounds: through gRPC,
by the library alone, and, where `--rival` names the interpreter of an environment that has it, by
sentence-transformers on torch (`--checkpoint` is the directory that it loads).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from benchmarks.daemons import running
from benchmarks.embeddings.texts import mixed_texts
from benchmarks.machine import describe_machine

__all__ = ["main"]


def _json_of(*words: str) -> dict[str, Any]:
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _served(variant: Path) -> float:
    store, model = variant.parents[2], f"{variant.parents[1].name}:{variant.name}"
    serve = ["serve", "--listen=127.0.0.1:0", f"--store={store}", f"--preload={model}"]
    with running("leptond", serve) as server:
        module = "benchmarks.embeddings.client"
        result = _json_of(sys.executable, "-m", module, server.address, f"--model={model}")
    return float(result["texts_per_s"])


@click.command
@click.option("--model", "variant", type=click.Path(path_type=Path, exists=True), required=True,
              help="A variant's folder, of CTranslate2.")  # fmt: skip
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--rival", type=click.Path(path_type=Path, exists=True), help="Its interpreter.")
@click.option("--checkpoint", type=click.Path(path_type=Path, exists=True), help="Its model.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the results there as JSON.")
def main(
    variant: Path, rounds: int, rival: Path | None, checkpoint: Path | None, out: Path | None
) -> None:
    """Measure; nothing else may run on the machine meanwhile."""
    speeds: dict[str, list[float]] = {"grpc": [], "from_tokens": [], "from_text": [], "rival": []}
    with TemporaryDirectory() as scratch:
        texts = Path(scratch) / "texts.json"
        texts.write_text(json.dumps(mixed_texts()), encoding="utf-8")

        def raw() -> None:
            found = _json_of(sys.executable, "-m", "benchmarks.embeddings.raw", str(variant))
            for way in ("from_tokens", "from_text"):
                speeds[way].append(found[way]["texts_per_s"])

        def grpc() -> None:
            speeds["grpc"].append(_served(variant))

        def other() -> None:
            if rival is not None:
                script = Path(__file__).with_name("rival.py")
                found = _json_of(str(rival), str(script), str(checkpoint), "--texts", str(texts))
                speeds["rival"].append(found["texts_per_s"])

        for number in range(rounds):
            turns = (grpc, raw, other)
            for turn in turns if number % 2 == 0 else reversed(turns):
                turn()
            print(
                json.dumps({way: found[-1] for way, found in speeds.items() if found}), flush=True
            )
    medians = {way: statistics.median(found) for way, found in speeds.items() if found}
    ratios = {way: round(medians["grpc"] / medians[way], 3) for way in medians if way != "grpc"}
    report = {"texts_per_s": medians, "grpc_to": ratios}
    print(json.dumps(report))
    if out is not None:
        whole = {
            "machine": describe_machine(),
            "model": f"{variant.parents[1].name}:{variant.name}",
        }
        out.write_text(json.dumps({**whole, **report}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
