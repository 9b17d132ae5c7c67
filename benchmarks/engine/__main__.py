"""`python -m benchmarks.engine --model DIR...`: prefill, decode, parts of a step, memory.

DIR is a variant (a folder with `graph.json`) or a folder of variants. All are loaded at once, and
rounds alternate between them, because the speed of a machine wanders: only figures of one run
compare. Each figure is the median over the rounds; a step's parts are

    binding   handing addresses and shapes to ONNX Runtime
    body      the body's run
    head      the head's run
    arrays    all else: checks, planning, packing, stacking of picks
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import click

from benchmarks.engine.work import Variant, Workload
from benchmarks.machine import describe_machine
from leptond_onnxruntime.options import EngineOptions

__all__ = ["main"]


def find_variants(folders: tuple[Path, ...]) -> list[Path]:
    """The variants that `folders` are, or hold."""
    found = []
    for folder in folders:
        inside = [path.parent for path in sorted(folder.glob("*/graph.json"))]
        found += [folder] if (folder / "graph.json").exists() else inside
    if not found:
        raise click.ClickException("no folder holds a variant: none has a graph.json")
    return found


def figures_of(workload: Workload) -> dict[str, float]:
    """Medians over the rounds, and memory."""
    figures = {name: statistics.median(values) for name, values in workload.samples.items()}
    figures["memory loaded, MiB"] = workload.loaded_bytes / 2**20
    figures["memory running, MiB"] = workload.running_bytes / 2**20
    return figures


def table(results: dict[str, dict[str, float]]) -> str:
    """A line per figure, a column per variant."""
    names = list(next(iter(results.values())))
    width = max(map(len, results))
    label = max(map(len, names))
    lines = [" " * label + "".join(f"  {variant:>{width}}" for variant in results)]
    for name in names:
        values = "".join(f"  {figures[name]:>{width}.2f}" for figures in results.values())
        lines.append(f"{name:<{label}}{values}")
    return "\n".join(lines)


@click.command
@click.option(
    "--model",
    "folders",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(min=1))
@click.option("--steps", default=24, show_default=True, type=click.IntRange(min=1))
@click.option("--num-threads", multiple=True, type=int, default=[0], help="May be repeated.")
@click.option("--spin-us", multiple=True, type=int, default=[20], help="May be repeated.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the results there as JSON.")
def main(
    *,
    folders: tuple[Path, ...],
    rounds: int,
    steps: int,
    num_threads: tuple[int, ...],
    spin_us: tuple[int, ...],
    out: Path | None,
) -> None:
    """Measure."""
    machine = describe_machine()
    print(json.dumps(machine))
    variants = [
        Variant(folder, EngineOptions(threads, spin))
        for folder in find_variants(folders)
        for threads in num_threads
        for spin in spin_us
    ]
    workloads = [Workload(variant, steps) for variant in variants]
    for _ in range(rounds):
        for workload in workloads:
            workload.run_round()
    results = {workload.variant.name: figures_of(workload) for workload in workloads}
    for workload in workloads:
        workload.close()
    print(table(results))
    if out is not None:
        report = {"machine": machine, "rounds": rounds, "results": results}
        out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
