"""What the commands of one invocation share: the client, and which model is meant."""

from __future__ import annotations

from functools import cached_property

import click

from leptond_client.cli.terminal import one_line
from leptond_client.client import Client
from leptond_client.retry import RetryPolicy

__all__ = ["Session"]

_PATIENCE_S = 10.0  # with a daemon that loads or restarts, unless --wait says otherwise


class Session:
    """One invocation of the command.

    Args:
        address: where the daemon is.
        timeout: seconds that each call may take; None is no limit.
        wait_s: how long to wait for a daemon that is not there; None does not.
    """

    def __init__(self, address: str, timeout: float | None, wait_s: float | None) -> None:
        self.address = address
        self._timeout = timeout
        self._retry = (
            RetryPolicy(max_wait_s=_PATIENCE_S)
            if wait_s is None
            else RetryPolicy(max_wait_s=wait_s, waits_for_daemon=True)
        )

    @cached_property
    def client(self) -> Client:
        """Made when it is first used."""
        return Client(self.address, timeout=self._timeout, retry=self._retry)

    def close(self) -> None:
        """Disconnect, if connected."""
        if "client" in vars(self):
            self.client.close()

    def model(self, given: str | None, task: str) -> str:
        """The model that was asked for, or else the only one that does such a task.

        Raises:
            click.UsageError: none was asked for and it is not clear which is meant.
        """
        if given:
            return given
        able = [
            model.name
            for model in self.client.models()
            if model.default is not None and task in model.default.tasks
        ]
        if len(able) == 1:
            return able[0]
        if not able:
            raise click.UsageError(f"the daemon at {self.address} has no model for {task}")
        names = one_line(", ".join(sorted(able)))
        raise click.UsageError(f"say with -m which model is meant: {names}")
