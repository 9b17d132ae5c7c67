"""`lepton translate`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any, BinaryIO

import click

from leptond_client.cli.lines import Line, Lines
from leptond_client.cli.options import TEXT, model_option, text_options
from leptond_client.cli.session import Session
from leptond_client.cli.several import answers
from leptond_client.cli.terminal import Answer, print_json
from leptond_client.values import Translation

__all__ = ["translate"]


@click.command()
@click.argument("texts", type=TEXT, nargs=-1)
@model_option
@text_options
@click.option("-s", "--source-language", type=TEXT,
              help="The language of the texts. By default the model's only one.")  # fmt: skip
@click.option("-t", "--target-language", type=TEXT,
              help="The language to translate to. By default the model's only one.")  # fmt: skip
@click.option("--plain", is_flag=True, help="Print the translations alone, in a pipe too.")
@click.option("--beam-size", type=click.IntRange(min=1), help="Hypotheses of beam search.")
@click.option("--alternatives", "num_alternatives", type=click.IntRange(min=1),
              help="Translations of each sentence, in JSON.")  # fmt: skip
@click.option("--length-penalty", type=float, help="Exponent of the length in a score.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="The most tokens of a sentence.")
@click.option("--target-prefix", type=TEXT, help="What each translation must begin with.")
@click.option("--split", "sentence_splitting", type=click.Choice(["when_long", "always", "never"]),
              help="How texts are cut into sentences. By default only long ones.")  # fmt: skip
@click.pass_obj
def translate(
    session: Session,
    /,
    texts: tuple[str, ...],
    model: str | None,
    source: BinaryIO | None,
    field: str | None,
    *,
    is_null_separated: bool,
    as_json: bool,
    plain: bool,
    **given: Any,
) -> None:
    """Translate TEXTS, or the lines of a file or of standard input.

    In a pipe one JSON object per line is printed, on a terminal the translations alone.
    """
    if plain and as_json:
        raise click.UsageError("--plain and --json exclude each other")
    lines = Lines(texts, source, field=field, is_null_separated=is_null_separated).good()
    name = session.model(model, "translate")
    is_plain = plain or (not as_json and sys.stdout.isatty())

    def ask(part: list[Line]) -> tuple[Translation, ...]:
        return session.client.translate(name, [line.text for line in part], **given).results

    is_progress_shown = not sys.stdout.isatty()
    for line, found in answers(
        lines, ask, address=session.address, is_progress_shown=is_progress_shown
    ):
        if is_plain:
            answer = Answer()
            answer.write(found.text + "\n")
        else:
            print_json({"line": line.number, **asdict(found)})
