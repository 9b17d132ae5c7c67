"""`lepton models list`, `load` and `unload`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict

import click

from leptond_client.cli.options import TEXT, json_option
from leptond_client.cli.session import Session
from leptond_client.cli.terminal import one_line, print_json
from leptond_client.client import Stream
from leptond_client.values import LoadProgress, Model, ModelVariant

__all__ = ["models"]


@click.group()
def models() -> None:
    """See which models there are; load and unload them."""


@models.command("list")
@click.argument("name", type=TEXT, default="")
@json_option
@click.pass_obj
def list_models(session: Session, name: str, *, as_json: bool) -> None:
    """List the models of the daemon's store, or the variants of NAME."""
    found = session.client.models(name)
    if as_json:
        print_json({"models": [asdict(model) for model in found]})
    elif sys.stdout.isatty():
        _print_table(found)
    else:
        for variant in _variants(found):
            click.echo("\t".join(_row(variant)))


@models.command("load")
@click.argument("name", type=TEXT)
@json_option
@click.pass_obj
def load_model(session: Session, name: str, *, as_json: bool) -> None:
    """Load the model NAME, and wait until it is ready."""
    stream = session.client.load_model(name)
    if sys.stderr.isatty():
        _show_progress(stream)
    else:
        for _ in stream:
            pass
    if as_json:
        print_json(asdict(stream.result))
    else:
        click.echo(one_line(f"{stream.result.name} is {stream.result.state}"))


@models.command("unload")
@click.argument("name", type=TEXT)
@json_option
@click.pass_obj
def unload_model(session: Session, name: str, *, as_json: bool) -> None:
    """Unload the model NAME once the calls that use it have finished."""
    found = session.client.unload_model(name)
    if as_json:
        print_json(asdict(found))
    elif found.models:
        click.echo(one_line(f"unloaded {', '.join(found.models)}"))
    else:
        click.echo(one_line(f"{name} was not loaded"))


def _variants(found: Iterable[Model]) -> list[ModelVariant]:
    return [variant for model in found for variant in model.variants]


def _row(variant: ModelVariant) -> tuple[str, ...]:
    cells = (
        variant.name,
        "default" if variant.is_default else "-",
        variant.state,
        variant.precision,
        variant.backend,
        ",".join(variant.tasks),
        str(variant.max_context_tokens or "-"),
        f"{variant.memory_bytes / (1 << 20):.0f} MiB" if variant.memory_bytes else "-",
    )
    return tuple(map(one_line, cells))


def _print_table(found: Iterable[Model]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("model", "", "state", "precision", "engine", "for", "context", "memory",
                  box=None, header_style="dim")  # fmt: skip
    for variant in _variants(found):
        table.add_row(*map(Text, _row(variant)))
    Console().print(table)


def _show_progress(stream: Stream[LoadProgress, ModelVariant]) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("waiting", total=1.0)
        for step in stream:
            progress.update(bar, completed=step.fraction, description=one_line(step.stage))
