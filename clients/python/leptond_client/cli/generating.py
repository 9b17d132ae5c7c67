"""`lepton generate`, and how an answer is shown while it comes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from leptond_client.cli.options import (
    TEXT,
    json_option,
    model_option,
    parse_special_option,
    piped_text,
    sampling_options,
)
from leptond_client.cli.session import Session
from leptond_client.cli.terminal import Answer, note, print_json, summary
from leptond_client.client import Stream
from leptond_client.values import Delta, Generation, TokenLogprob

__all__ = ["as_json_object", "generate", "show"]


@click.command()
@click.argument("prompt", type=TEXT, required=False)
@model_option
@sampling_options
@parse_special_option
@click.option("--logprobs", type=click.IntRange(0, 20),
              help="With --json: log-probabilities, with so many alternatives.")  # fmt: skip
@json_option
@click.pass_obj
def generate(
    session: Session, /, prompt: str | None, model: str | None, *, as_json: bool, **sampling: Any
) -> None:
    """Continue PROMPT, or standard input, as it is: no chat template is applied."""
    if sampling["logprobs"] is not None and not as_json:
        raise click.UsageError("--logprobs needs --json")
    prompt = piped_text("prompt") if prompt is None else prompt
    name = session.model(model, "generate")
    if as_json:
        print_json(as_json_object(session.client.generate(name, prompt, **sampling)))
    else:
        stream = session.client.generate_stream(name, prompt, **sampling)
        note(summary(show(stream, Answer())))


def show(stream: Stream[Delta, Generation], answer: Answer) -> Generation:
    """Write an answer as it comes; returns the whole."""
    try:
        for delta in stream:
            answer.write(delta.text)
    finally:
        answer.end()
    return stream.result


def as_json_object(result: Generation) -> dict[str, Any]:
    """What `--json` prints of an answer."""
    found: dict[str, Any] = {
        "text": result.text,
        "token_ids": result.token_ids,
        "finish_reason": result.finish_reason,
        "usage": asdict(result.usage),
        "timing": asdict(result.timing),
    }
    if result.logprobs:
        found["logprobs"] = [
            {**_logprob(entry), "top": [_logprob(other) for other in entry.top]}
            for entry in result.logprobs
        ]
    return found


def _logprob(entry: TokenLogprob) -> dict[str, Any]:
    text = entry.token.decode("utf-8", "replace")
    return {"token_id": entry.token_id, "token": text, "logprob": entry.logprob}
