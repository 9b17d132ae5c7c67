"""`lepton classify`, `lepton rerank` and `lepton score`: labels, orders and likelihoods."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from typing import Any, BinaryIO

import click

from leptond_client.cli.failures import failure
from leptond_client.cli.lines import Line, Lines
from leptond_client.cli.options import TEXT, model_option, text_options, truncation_options
from leptond_client.cli.session import Session
from leptond_client.cli.several import answers, named_line
from leptond_client.cli.terminal import note, print_json, print_table
from leptond_client.errors import LeptonError
from leptond_client.values import Classification, Score, ScoreInput

__all__ = ["classify", "rerank", "score"]


@click.command()
@click.argument("texts", type=TEXT, nargs=-1)
@model_option
@text_options
@click.option("--pairs", is_flag=True, help="Each text is a pair, its two halves tab-separated.")
@click.option("--label", "labels", type=TEXT, multiple=True,
              help="A label to choose from, for models that are not bound to their own. "
              "Repeatable.")  # fmt: skip
@click.option("--hypothesis-template", type=TEXT,
              help='With --label: a sentence in which "{}" stands for a label.')  # fmt: skip
@click.option("--multi-label/--single-label", default=None,
              help="Whether labels are independent of each other. By default as the model's files "
              "say.")  # fmt: skip
@click.option("--top-k", type=click.IntRange(min=1), help="Only the best so many labels.")
@click.option("--raw-scores", is_flag=True, help="Logits instead of probabilities.")
@truncation_options
@click.pass_obj
def classify(
    session: Session,
    /,
    texts: tuple[str, ...],
    model: str | None,
    source: BinaryIO | None,
    field: str | None,
    *,
    is_null_separated: bool,
    as_json: bool,
    pairs: bool,
    **given: Any,
) -> None:
    """Label TEXTS, or the lines of a file or of standard input."""
    lines = Lines(texts, source, field=field, is_null_separated=is_null_separated).good()
    name = session.model(model, "classify")

    def ask(part: list[Line]) -> tuple[Classification, ...]:
        inputs = [_pair(line) if pairs else line.text for line in part]
        return session.client.classify(name, inputs, **given).results

    is_table = _is_table(as_json=as_json)
    rows = []
    for line, found in answers(lines, ask, address=session.address, is_progress_shown=not is_table):
        if is_table:
            rows += [(str(line.number), one.label, f"{one.score:.4f}") for one in found.labels]
        else:
            print_json({"line": line.number, **asdict(found)})
    if is_table:
        print_table(("line", "label", "score"), rows)


@click.command()
@click.argument("query", type=TEXT)
@click.argument("documents", type=TEXT, nargs=-1)
@model_option
@text_options
@click.option("--top-n", type=click.IntRange(min=1), help="Only the best so many documents.")
@click.option("--raw-scores", is_flag=True, help="Scores as the model gives them.")
@click.option("--method", type=click.Choice(["cross_encoder", "embedding_similarity"]),
              help="How to compare. By default the best that the model can.")  # fmt: skip
@truncation_options
@click.pass_obj
def rerank(
    session: Session,
    /,
    query: str,
    documents: tuple[str, ...],
    model: str | None,
    *,
    source: BinaryIO | None,
    field: str | None,
    is_null_separated: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Order DOCUMENTS, or the lines of a file or of standard input, by relevance to QUERY."""
    lines = Lines(documents, source, field=field, is_null_separated=is_null_separated).good()
    name = session.model(model, "rerank")
    try:
        found = session.client.rerank(name, query, [line.text for line in lines], **given)
    except LeptonError as error:
        raise failure(named_line(error, lines), session.address) from error
    ranked = [(lines[one.index], one) for one in found.results]
    if _is_table(as_json=as_json):
        rows = [(str(line.number), f"{one.score:.4f}", line.text) for line, one in ranked]
        print_table(("line", "score", "document"), rows)
        note(f"by {found.method.replace('_', ' ')}")
        return
    for line, one in ranked:
        print_json({
            "line": line.number,
            "score": one.score,
            "document": line.text,
            "method": found.method,
            "truncated_tokens": one.truncated_tokens,
        })  # fmt: skip


@click.command()
@click.argument("texts", type=TEXT, nargs=-1)
@model_option
@text_options
@click.option("--prompt", type=TEXT, help="What comes before each text.")
@click.option("--tokens", "with_tokens", is_flag=True,
              help="Print the log-probability of each token, in JSON.")  # fmt: skip
@click.pass_obj
def score(
    session: Session,
    /,
    texts: tuple[str, ...],
    model: str | None,
    source: BinaryIO | None,
    field: str | None,
    *,
    is_null_separated: bool,
    as_json: bool,
    prompt: str | None,
    with_tokens: bool,
) -> None:
    """Say how likely TEXTS are, or the lines of a file or of standard input."""
    lines = Lines(texts, source, field=field, is_null_separated=is_null_separated).good()
    name = session.model(model, "score")

    def ask(part: list[Line]) -> tuple[Score, ...]:
        inputs = [ScoreInput(line.text, prompt) for line in part]
        return session.client.score(name, inputs, omit_token_logprobs=not with_tokens).results

    is_table = _is_table(as_json=as_json or with_tokens)
    rows = []
    for line, found in answers(lines, ask, address=session.address, is_progress_shown=not is_table):
        if is_table:
            cells = (f"{found.logprob:.3f}", str(found.num_tokens), f"{_perplexity(found):.2f}")
            rows.append((str(line.number), *cells))
        else:
            print_json(_score_object(line, found))
    if is_table:
        print_table(("line", "log-probability", "tokens", "perplexity"), rows)


def _score_object(line: Line, found: Score) -> dict[str, Any]:
    result: dict[str, Any] = {
        "line": line.number,
        "logprob": found.logprob,
        "num_tokens": found.num_tokens,
        "perplexity": _perplexity(found),
    }
    if found.tokens:
        result["tokens"] = [
            {"token_id": token.token_id, "logprob": token.logprob} for token in found.tokens
        ]
    return result


def _perplexity(found: Score) -> float:
    """Of a text without scored tokens it is 1."""
    return math.exp(-found.logprob / max(found.num_tokens, 1))


def _pair(line: Line) -> tuple[str, str]:
    first, tab, second = line.text.partition("\t")
    if not tab:
        raise click.UsageError(f"line {line.number}: there is no tab between two texts")
    return first, second


def _is_table(*, as_json: bool) -> bool:
    return not as_json and sys.stdout.isatty()
