"""The daemon's own work without gRPC: scheduler, session, sampling, text, into a sink that counts.

`python -m benchmarks.transport.in_process --streams 16 --tokens 400 (--fake OPTIONS | --model DIR)`
prints one JSON line: tokens, wall seconds, CPU seconds.
"""

from __future__ import annotations

import json
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from leptond.backend import Model, ModelSource, SessionOptions
from leptond.backend.fake import fake_source, parse_fake_model, write_fake_assets
from leptond.backend.registry import get_backend
from leptond.errors import LeptondError
from leptond.scheduler import ComputeBudget, SchedulerOptions, StepScheduler
from leptond.text import Tokenizer
from leptond.types import (
    GenerationRequest,
    GenerationSummary,
    SamplingParams,
    StopConditions,
    TokenChunk,
)

__all__ = ["CountingSink", "main"]


class CountingSink:
    """Counts tokens and keeps nothing: the cheapest reader there is."""

    is_cancelled = False
    has_room = True

    def __init__(self, on_end: Callable[[], None]) -> None:
        self.num_tokens = 0
        self.error: LeptondError | None = None
        self._on_end = on_end

    def attach(self, wake: Callable[[], None]) -> None:
        """Nobody cancels."""

    def push(self, item: TokenChunk) -> None:
        """Count."""
        self.num_tokens += len(item.token_ids)

    def finish(self, final: GenerationSummary) -> None:
        """The end."""
        del final
        self._on_end()

    def fail(self, error: LeptondError) -> None:
        """The end, badly."""
        self.error = error
        self._on_end()


def run_streams(
    model: Model, tokenizer: Tokenizer, prompts: list[list[int]], num_tokens: int, context: int
) -> dict[str, float]:
    """Run every prompt at once to `num_tokens` tokens each."""
    scheduler = StepScheduler(
        "benchmark",
        model,
        SessionOptions(num_slots=len(prompts), max_tokens=context),
        tokenizer,
        SchedulerOptions(),
        compute=ComputeBudget(2),
        flush=lambda: None,
    )
    scheduler.start()
    ended = threading.Semaphore(0)
    sinks = [CountingSink(ended.release) for _ in prompts]
    used = _cpu_seconds()
    began = time.monotonic()
    for number, (prompt, sink) in enumerate(zip(prompts, sinks, strict=True)):
        request = GenerationRequest(
            id=str(number),
            prompt_ids=tuple(prompt),
            sampling=SamplingParams(temperature=0.0),
            stop=StopConditions(max_tokens=num_tokens),
        )
        scheduler.submit(request, sink)
    for _ in prompts:
        ended.acquire()
    wall_s, cpu_s = time.monotonic() - began, _cpu_seconds() - used
    scheduler.stop(10.0)
    for sink in sinks:
        if sink.error is not None:
            raise sink.error
    return {"tokens": sum(sink.num_tokens for sink in sinks), "wall_s": wall_s, "cpu_s": cpu_s}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@click.command
@click.option("--streams", type=int, required=True)
@click.option("--tokens", type=int, required=True)
@click.option("--fake", help="A fake model, as `leptond serve --fake-model` takes it.")
@click.option("--model", "directory", type=click.Path(path_type=Path), help="A variant's folder.")
@click.option("--prompt", default="Tell me a long story about the sea. ")
def main(streams: int, tokens: int, fake: str | None, directory: Path | None, prompt: str) -> None:
    """Print one JSON line with tokens, wall and CPU seconds."""
    with TemporaryDirectory() as scratch:
        if fake is not None:
            _, options = parse_fake_model(fake)
            write_fake_assets(Path(scratch), options)
            source, assets, backend = fake_source(options), Path(scratch), get_backend("fake")
        elif directory is not None:
            source = ModelSource(directory, directory.name)
            assets, backend = directory.parent, get_backend("onnxruntime")
        else:
            raise click.UsageError("give --fake or --model")
        model = backend.load(source, lambda stage, fraction: None)
        tokenizer = Tokenizer.load(assets)
        prompts = [tokenizer.encode(f"{prompt}{number}") for number in range(streams)]
        context = max(map(len, prompts)) + tokens + 1
        run_streams(model, tokenizer, prompts, min(tokens, 16), context)  # warm-up
        print(json.dumps(run_streams(model, tokenizer, prompts, tokens, context)))
        model.close()


if __name__ == "__main__":
    main()
