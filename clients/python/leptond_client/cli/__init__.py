"""The `lepton` command: argv to calls, answers to the terminal or to JSON, errors to exit codes.

The exit codes are part of the interface; `lepton --help` and docs/client.md say them.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from leptond_client.cli import (
    chat,
    embedding,
    generating,
    health,
    judging,
    models,
    tokenizing,
    translating,
)
from leptond_client.cli.failures import Interrupted, failure
from leptond_client.cli.session import Session
from leptond_client.connection import DEFAULT_ADDRESS, resolve_address
from leptond_client.errors import LeptonError

__all__ = ["main"]

_EPILOG = """
\b
Exit codes:
    0  it worked; `health`: it serves
    1  the daemon refused or failed, or the output was closed; `health`: it does not serve
    2  the command line is wrong
    3  no daemon answers, or it cannot take the call now
    4  the time of --timeout was over
  130  interrupted by Ctrl-C
"""


class _Group(click.Group):
    """Ends every error in one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LeptonError as error:
            session = ctx.find_object(Session)
            raise failure(error, session.address if session else "") from error
        except KeyboardInterrupt as error:
            raise Interrupted("interrupted") from error


def _checked_address(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    try:
        return resolve_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
)
@click.version_option(package_name="leptond", prog_name="lepton")
@click.option("--address", metavar="HOST:PORT|unix:/PATH", callback=_checked_address,
              help="Where the daemon is. By default $LEPTON_ADDRESS, else "
              f"{DEFAULT_ADDRESS}.")  # fmt: skip
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(min=0, min_open=True),
              help="How long each request may take. By default as long as it takes.")  # fmt: skip
@click.option("--wait", "wait_s", metavar="SECONDS", type=click.FloatRange(min=0),
              help="How long to wait for a daemon that is not there yet, or loads or stops. By "
              "default one that is not there is an error at once.")  # fmt: skip
@click.pass_context
def main(context: click.Context, address: str, timeout: float | None, wait_s: float | None) -> None:
    """Talk to a leptond daemon."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal has every character
    session = Session(address, timeout, wait_s)
    context.obj = session
    context.call_on_close(session.close)


for _command in (
    chat.chat,
    generating.generate,
    embedding.embed,
    judging.classify,
    judging.rerank,
    translating.translate,
    judging.score,
    tokenizing.tokenize,
    tokenizing.detokenize,
    models.models,
    health.health,
):
    main.add_command(_command)
