"""`leptond models`, `leptond backends`, `leptond protos`: what there is, without a daemon."""

from __future__ import annotations

import json
from pathlib import Path

import click

from leptond.cli.options import store_option

__all__ = ["backends", "models", "protos"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.command
@store_option
@json_option
def models(stores: tuple[Path, ...], *, as_json: bool) -> None:
    """List the models in the store."""
    from leptond.models import Store

    found = sorted(Store(stores).scan().values(), key=lambda model: model.name)
    rows = [
        {
            "name": variant.name,
            "version": variant.version,
            "default": variant.variant == model.default_variant,
            "backend": variant.backend,
            "precision": variant.precision,
            "tasks": sorted(variant.tasks),
            "directory": str(variant.directory),
            "fault": variant.fault,
        }
        for model in found
        for variant in model.variants.values()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        searched = ", ".join(map(str, stores))
        click.echo(f"no models in {searched}; try: leptond import default:chat", err=True)
    for row in rows:
        mark = "*" if row["default"] else " "
        said = f"damaged: {row['fault']}" if row["fault"] else row["backend"]
        click.echo(f"{mark} {row['name']:40} version {row['version']}  {said}")


@click.command
@json_option
def backends(*, as_json: bool) -> None:
    """List the engines, and why one cannot be used."""
    from leptond.backend.registry import list_backends

    statuses = list_backends()
    if as_json:
        rows = [
            {
                "name": status.name,
                "usable": status.is_usable,
                "reason": status.reason,
                "provider": status.provider,
                "warning": status.warning,
                "details": dict(status.details),
            }
            for status in statuses
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for status in statuses:
        details = " ".join(f"{key}={value}" for key, value in status.details.items())
        said = details if status.is_usable else f"not usable: {status.reason}"
        click.echo(f"{status.name:16} {said}")
        if status.warning:
            click.echo(f"{status.name:16} warning: {status.warning}", err=True)


@click.command
@click.option("--out", "directory", required=True, type=click.Path(path_type=Path, file_okay=False),
              help="Where to write them; made when it is not there.")  # fmt: skip
def protos(directory: Path) -> None:
    """Write the API's .proto files, and what they import, for other languages."""
    from leptond.v1.sources import write_protos

    for path in write_protos(directory):
        click.echo(path)
