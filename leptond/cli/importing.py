"""`leptond import`: bring a model into the store."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from leptond.cli.options import store_option
from leptond.cli.progress import shown_progress

__all__ = ["import_command"]


@click.command("import")
@click.argument("source")
@store_option
@click.option("--name", help="Name in the store; the default comes from the source.")
@click.option("--backend", "backend_name", default="onnxruntime", show_default=True,
              help="Engine that shall run it.")  # fmt: skip
@click.option("--quantization", help="Precision, such as int8, float32 or float16; the default "
              "is the engine's own.")  # fmt: skip
def import_command(
    source: str,
    stores: tuple[Path, ...],
    name: str | None,
    backend_name: str,
    quantization: str | None,
) -> None:
    """Bring the model SOURCE into the store.

    SOURCE is `default:chat`, or a GGUF file of the Llama architecture.
    """
    from leptond.backend.registry import get_backend
    from leptond.models import Store
    from leptond.models.importing import import_model

    backend = get_backend(backend_name)
    with (
        _terminated_like_interrupted(),
        _naming(stores[0]),
        shown_progress(f"import {source}") as progress,
    ):
        imported = import_model(
            source,
            Store(stores),
            backend,
            name=name,
            precision=quantization,
            progress=progress,
        )
    verb = "imported" if imported.is_new else "already there:"
    click.echo(f"{verb} {imported.name} version {imported.version} ({imported.directory})")


@contextmanager
def _naming(store: Path) -> Iterator[None]:
    """Say where a disk is full: an error of a write names no file."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(f"cannot write to {store}: {error.strerror or error}") from error


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that a staging directory is removed on the way."""

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        del frame
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
