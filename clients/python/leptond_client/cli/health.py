"""`lepton health`."""

from __future__ import annotations

import click

from leptond_client.cli.options import TEXT, json_option
from leptond_client.cli.session import Session
from leptond_client.cli.terminal import print_json
from leptond_client.values import ServingStatus

__all__ = ["health"]


@click.command()
@click.argument("name", type=TEXT, default="")
@click.option("--watch", is_flag=True, help="Print each change until interrupted.")
@json_option
@click.pass_obj
def health(session: Session, name: str, *, watch: bool, as_json: bool) -> None:
    """Say whether the daemon serves, or the model or service called NAME.

    The exit code is 0 when it does and 1 when it does not.
    """
    if watch:
        for status in session.client.watch(name):
            _print(name, status, as_json=as_json)
        return
    status = session.client.check(name)
    _print(name, status, as_json=as_json)
    click.get_current_context().exit(0 if status is ServingStatus.SERVING else 1)


def _print(name: str, status: ServingStatus, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "status": status})
    else:
        click.echo(status)
