"""`lepton tokenize` and `lepton detokenize`."""

from __future__ import annotations

import click

from leptond_client.cli.options import (
    TEXT,
    json_option,
    model_option,
    parse_special_option,
    piped_text,
)
from leptond_client.cli.session import Session
from leptond_client.cli.terminal import Answer, print_json

__all__ = ["detokenize", "tokenize"]


@click.command()
@click.argument("text", type=TEXT, required=False)
@model_option
@parse_special_option
@click.option("--add-special/--no-add-special", "add_special_tokens", default=None,
              help="Whether the tokens that begin or end a text are added. By default as the "
              "model's tokenizer says.")  # fmt: skip
@json_option
@click.pass_obj
def tokenize(
    session: Session,
    text: str | None,
    model: str | None,
    *,
    as_json: bool,
    parse_special: bool | None,
    add_special_tokens: bool | None,
) -> None:
    """Print the token ids of TEXT, or of standard input."""
    text = piped_text("text") if text is None else text
    found = session.client.tokenize(
        session.model(model, "tokenize"),
        text,
        parse_special=parse_special,
        add_special_tokens=add_special_tokens,
    )
    if as_json:
        print_json({"token_ids": found.token_ids})
    else:
        click.echo(" ".join(map(str, found.token_ids)))


@click.command()
@click.argument("token_ids", type=click.IntRange(min=0), nargs=-1, required=True)
@model_option
@click.option("--keep-special", is_flag=True, help="Spell control tokens out.")
@json_option
@click.pass_obj
def detokenize(
    session: Session,
    token_ids: tuple[int, ...],
    model: str | None,
    *,
    keep_special: bool,
    as_json: bool,
) -> None:
    """Print the text of TOKEN_IDS."""
    name = session.model(model, "tokenize")
    text = session.client.detokenize(name, token_ids, skip_special_tokens=not keep_special)
    if as_json:
        print_json({"text": text})
    else:
        answer = Answer()
        answer.write(text)
        answer.end()
