"""`leptond serve`: run the daemon in the foreground."""

from __future__ import annotations

import asyncio
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from leptond.cli.options import config_option, read_config

__all__ = ["serve"]

_STUCK = 3


@click.command
@config_option
@click.option("--store", multiple=True, type=click.Path(path_type=Path, file_okay=False),
              help="Directory of models; may be repeated.")  # fmt: skip
@click.option("--listen", multiple=True, metavar="ADDRESS",
              help="HOST:PORT or unix:/PATH; may be repeated; port 0 picks one.")  # fmt: skip
@click.option("--admin-listen", multiple=True, metavar="ADDRESS",
              help="Address that also answers administrative methods.")  # fmt: skip
@click.option("--preload", multiple=True, metavar="MODEL",
              help="Load this model before being ready; may be repeated.")  # fmt: skip
@click.option("--metrics-listen", metavar="HOST:PORT", help="Metrics for Prometheus.")
@click.option("--otlp-endpoint", metavar="URL", help="Collector of traces and metrics.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--log-format", type=click.Choice(["auto", "json", "text"]))
@click.option("--grace", type=float, metavar="SECONDS",
              help="How long running calls may take once it stops.")  # fmt: skip
@click.option("--insecure", is_flag=True, default=None,
              help="Allow unprotected addresses beyond loopback.")  # fmt: skip
@click.option(
    "--fake-model",
    "fake_models",
    multiple=True,
    metavar="NAME[:OPTION=VALUE,...]",
    help="Serve a deterministic fake model, for tests of clients; may be repeated.",
)
def serve(config_path: Path | None, fake_models: tuple[str, ...], **flags: Any) -> None:
    """Serve models until SIGTERM or Ctrl-C.

    Each address is printed on a line of its own once it accepts connections.
    """
    import uvloop

    from leptond.backend.fake import parse_fake_model
    from leptond.daemon import Daemon, daemon_options
    from leptond.host import HostEnvironment, Notifier, StopSignals
    from leptond.telemetry import Telemetry, setup_logging

    try:
        fakes = [parse_fake_model(text) for text in fake_models]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--fake-model") from error
    names = [name for name, _ in fakes]
    for name in names:
        if names.count(name) > 1:
            msg = f"{name!r} is given more than once"
            raise click.BadParameter(msg, param_hint="--fake-model")
    given = {"--" + name.replace("_", "-"): value for name, value in flags.items()}
    loaded = read_config(config_path, given)
    host = HostEnvironment.read()
    setup_logging(loaded.config.log.to_options(), is_journal=host.is_journal(sys.stderr.fileno()))
    options = daemon_options(loaded.config, host, fakes)
    telemetry = Telemetry.configure(
        loaded.config.telemetry.to_options(), os.environ, version=version("leptond")
    )

    async def run() -> bool:
        async with StopSignals() as signals:
            daemon = Daemon(
                options,
                telemetry=telemetry,
                notifier=Notifier(host.notify_socket),
                watchdog_interval_s=host.watchdog_interval_s,
                signals=signals,
                announce=click.echo,
            )
            return await daemon.run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        is_clean = runner.run(run())
    if not is_clean:
        click.echo("leptond: stopped, but a worker would not end in time", err=True)
        sys.stderr.flush()
        os._exit(_STUCK)  # a thread stuck in native code would keep the process for ever
