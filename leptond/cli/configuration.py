"""`leptond check-config` and `leptond config show`: the configuration, without a daemon."""

from __future__ import annotations

import json
from pathlib import Path

import click

from leptond.cli.options import config_option, read_config

__all__ = ["check_config", "config"]


@click.command("check-config")
@config_option
def check_config(config_path: Path | None) -> None:
    """Say whether the configuration can be used, and if not, everything that is wrong."""
    loaded = read_config(config_path)
    click.echo(f"{loaded.path or 'configuration'}: ok")


@click.group
def config() -> None:
    """Look at the configuration."""


@config.command
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(config_path: Path | None, *, as_json: bool) -> None:
    """Print every value in effect and where it came from; secrets are masked."""
    from leptond.config import iter_rows, show_config

    loaded = read_config(config_path)
    if not as_json:
        click.echo(show_config(loaded), nl=False)
        return
    rows = {
        f"{section}.{key}": {"value": value, "origin": str(origin)}
        for section, key, value, origin in iter_rows(loaded)
    }
    click.echo(json.dumps(rows, indent=2))
