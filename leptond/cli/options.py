"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from leptond.config import LoadedConfig

__all__ = ["config_option", "read_config", "store_option"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def config_option(command: CommandT) -> CommandT:
    """`--config FILE`; without it `$LEPTOND_CONFIG`, or no file."""
    option = click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        help="TOML file; the default is $LEPTOND_CONFIG.",
    )
    return option(command)


class _WrongConfiguration(click.ClickException):
    """What is wrong, a line each; the command line is wrong in the same way."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        for line in self.message.splitlines():
            click.echo(f"leptond: {line}", file=file, err=True)


def read_config(path: Path | None, flags: Mapping[str, Any] | None = None) -> LoadedConfig:
    """The configuration; `flags` by the name of the flag that was given."""
    from leptond.config import ConfigError, load_config, settings_of_flags

    settings = settings_of_flags()
    try:
        return load_config(
            path, flags={settings[flag]: value for flag, value in (flags or {}).items()}
        )
    except ConfigError as error:
        raise _WrongConfiguration(str(error)) from error


def _default_stores() -> tuple[Path, ...]:
    from leptond.config import default_stores

    return default_stores()


def store_option(command: CommandT) -> CommandT:
    """`--store DIR`, as a tuple of paths; without it what the environment says."""
    option = click.option(
        "--store",
        "stores",
        multiple=True,
        type=click.Path(path_type=Path, file_okay=False),
        default=_default_stores,
        help="Directory of models; may be repeated. Imports go into the first.",
    )
    return option(command)
