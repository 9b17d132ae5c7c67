"""The `leptond` command: argv to options, errors to one line, outcomes to exit codes.

Exit codes: 0 it worked; 1 it did not, and one line on stderr says why; 2 the command line or the
configuration is wrong; 3 the daemon stopped, but something in it would not end in time.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

import click

from leptond.cli.configuration import check_config, config
from leptond.cli.importing import import_command
from leptond.cli.listing import backends, models, protos
from leptond.cli.serving import serve
from leptond.errors import LeptondError

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("leptond"), prog_name="leptond")
def command() -> None:
    """Serve models over gRPC: one daemon for many models."""


for _command in (
    serve,
    check_config,
    config,
    import_command,
    models,
    backends,
    protos,
):
    command.add_command(_command)


def main() -> None:
    """Run the command line; does not return."""
    try:
        code = command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        click.echo("leptond: interrupted", err=True)
        code = 130
    except ModuleNotFoundError as error:
        click.echo(f"leptond: {error}; this command needs leptond[server]", err=True)
        code = 1
    except (LeptondError, OSError) as error:
        click.echo(f"leptond: {error}", err=True)
        code = 1
    sys.exit(code)
