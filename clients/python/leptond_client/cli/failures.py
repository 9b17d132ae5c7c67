"""How a command ends badly: one line on stderr and an exit code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import click

from leptond_client.cli.terminal import one_line
from leptond_client.errors import DeadlineExceeded, LeptonError, Unavailable

__all__ = ["Failure", "Interrupted", "NoDaemon", "TimeIsOver", "describe", "failure"]


class Failure(click.ClickException):
    """The daemon refused, or failed; its message is one line."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line."""
        click.echo(f"lepton: {self.message}", file=file, err=True)


class NoDaemon(Failure):
    """Nobody answers, or a daemon that cannot take the call now."""

    exit_code = 3


class TimeIsOver(Failure):
    """The time of --timeout was over."""

    exit_code = 4


class Interrupted(Failure):
    """Ctrl-C."""

    exit_code = 130


_FAILURE_OF: Mapping[type[LeptonError], type[Failure]] = {
    Unavailable: NoDaemon,
    DeadlineExceeded: TimeIsOver,
}


def failure(error: LeptonError, address: str) -> Failure:
    """The end of the command that an error of the client means."""
    return _FAILURE_OF.get(type(error), Failure)(describe(error, address))


def describe(error: LeptonError, address: str) -> str:
    """The error in one line: what, its code, and how to find it in the daemon's log."""
    if isinstance(error, Unavailable) and not error.is_from_daemon:
        return one_line(f"no daemon answers at {address}: {error.message}")
    facts = [error.reason or error.code.name]
    if error.request_id:
        facts.append(f"request {error.request_id}")
    if error.retry_after_s is not None:
        facts.append(f"try again in {error.retry_after_s:g} s")
    return one_line(f"{error.message} ({', '.join(facts)})")
