"""`python -m benchmarks.perplexity --model DIR`: what each precision costs in quality.

DIR is a version of a model in a store: a folder with `tokenizer.json` and a folder per variant.
Every variant reads the evaluation text in three ways, because prefill, decoding alone and decoding
in a batch run through different kernels. The yardstick is float32 in prefill, the arithmetic of
the source's own weights; `ratio` is to it, over the same tokens.

A variant whose engine answers in whole calls is read by its task `score`, which is a prefill.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.machine import describe_machine
from benchmarks.perplexity.corpus import corpus_digest, windows
from benchmarks.perplexity.scoring import WindowScore, perplexity, score, score_in_whole_calls
from leptond.backend import ModelSource, SessionOptions, StepSession
from leptond.backend.registry import get_backend
from leptond.text import Tokenizer

__all__ = ["main"]

WINDOW_TOKENS = 512
YARDSTICK = "float32"


@dataclass(frozen=True, slots=True)
class Way:
    """One way of reading: rows side by side, and tokens of each row in a step."""

    name: str
    num_rows: int
    chunk_tokens: int


PREFILL = Way("prefill", 1, WINDOW_TOKENS)
WAYS = {way.name: way for way in (PREFILL, Way("batch 1", 1, 1), Way("batch 16", 16, 1))}


def measure(
    variant: Path, ways: list[Way], texts: list[list[int]], alone_windows: int
) -> dict[str, list[WindowScore]]:
    """Return the score of each window, by way."""
    facts = tomllib.loads((variant / "variant.toml").read_text(encoding="utf-8"))
    model = get_backend(facts["backend"]).load(
        ModelSource(variant, facts["precision"]), lambda stage, fraction: None
    )
    most_rows = max(way.num_rows for way in ways)
    session = model.open_session(SessionOptions(num_slots=most_rows, max_tokens=WINDOW_TOKENS))
    results = {}
    for way in ways:
        if not isinstance(session, StepSession):
            results[PREFILL.name] = score_in_whole_calls(session, texts)
            break
        read = texts[:alone_windows] if way.num_rows == way.chunk_tokens == 1 else texts
        results[way.name] = score(
            session, read, num_rows=way.num_rows, chunk_tokens=way.chunk_tokens
        )
    session.shutdown()
    model.close()
    return results


def line_of(
    precision: str, way: str, scores: list[WindowScore], yardstick: list[WindowScore]
) -> dict[str, object]:
    """Return one line of the report."""
    found, expected = perplexity(scores), perplexity(yardstick[: len(scores)])
    return {
        "precision": precision,
        "way": way,
        "tokens": sum(window.num_tokens for window in scores),
        "perplexity": round(found, 3),
        "ratio": round(found / expected, 5),
    }


@click.command
@click.option("--model", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--precision", "precisions", multiple=True, help="Default: every variant there is.")
@click.option("--way", "names", multiple=True, type=click.Choice(list(WAYS)), default=list(WAYS))
@click.option(
    "--alone-windows",
    type=click.IntRange(min=1),
    default=1000,
    help="Windows of 512 tokens that batch 1 reads, the slowest way. Default: all.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the results there as JSON.")
def main(
    model: Path,
    precisions: tuple[str, ...],
    names: tuple[str, ...],
    alone_windows: int,
    out: Path | None,
) -> None:
    """Measure; the float32 variant must be there."""
    variants = {path.parent.name: path.parent for path in sorted(model.glob("*/variant.toml"))}
    missing = {YARDSTICK, *precisions} - set(variants)
    if missing:
        raise click.ClickException(f"{model} has no variant {', '.join(sorted(missing))}")
    tokenizer = Tokenizer.load(model)
    texts = windows(tokenizer.encode, WINDOW_TOKENS)
    ways = [WAYS[name] for name in names]
    yardstick = measure(variants[YARDSTICK], [PREFILL], texts, alone_windows)[PREFILL.name]
    lines = []
    for precision in precisions or tuple(variants):
        found = measure(variants[precision], ways, texts, alone_windows)
        for way, scores in found.items():
            lines.append(line_of(precision, way, scores, yardstick))
            print(json.dumps(lines[-1]), flush=True)
    if out is not None:
        report = {
            "machine": describe_machine(),
            "model": model.parent.name,
            "text_sha256": corpus_digest(),
            "yardstick_perplexity": round(perplexity(yardstick), 3),
            "results": lines,
        }
        out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
