"""`leptond import`: bring a model into the store."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from leptond.cli.options import store_option
from leptond.cli.progress import shown_progress

if TYPE_CHECKING:
    from leptond.models import Store

__all__ = ["import_command"]


@click.command("import")
@click.argument("source")
@store_option
@click.option("--name", help="Name in the store; the default comes from the source.")
@click.option("--backend", help="Engine that shall run it. The default is the recipe's of a "
              "default model, the engine of ready files, onnxruntime for decoders, and "
              "ctranslate2, where it is installed, for encoders and translators.")  # fmt: skip
@click.option("--quantization", help="Precision, such as int8, float32 or float16; the default "
              "is the recipe's or the engine's own.")  # fmt: skip
@click.option("--tokenizer", type=click.Path(path_type=Path, dir_okay=False),
              help="The tokenizer.json of a model in an engine's own format.")  # fmt: skip
@click.option("--pooling", type=click.Choice(["mean", "cls", "last"]),
              help="How an encoder in an engine's own format pools; the default is "
              "mean.")  # fmt: skip
@click.option("--no-measure", is_flag=True, help="Do not run encoders once they are imported: no "
              "speed, no comparison of variants.")  # fmt: skip
def import_command(
    source: str,
    *,
    stores: tuple[Path, ...],
    name: str | None,
    backend: str | None,
    quantization: str | None,
    tokenizer: Path | None,
    pooling: str | None,
    no_measure: bool,
) -> None:
    """Bring the model SOURCE into the store.

    SOURCE is one of

    \b
    default:chat    SmolLM2 135M Instruct, int8 for onnxruntime
    default:embed   all-MiniLM-L6-v2, float32 and int8 for ctranslate2
    FILE.gguf       a decoder of the Llama architecture
    DIRECTORY       of Hugging Face, with safetensors: Llama-like decoders,
                    BERT-like encoders, T5, Marian and M2M translators
    READY           what an engine reads as it is, with --tokenizer: a
                    directory of CTranslate2 (model.bin), or the ONNX
                    file of an encoder (FILE.onnx)

    What was imported is said on stdout, a line for each variant. Encoders are then run on a few
    texts, together with the other variants of the model, and stderr says how fast each is here
    and how well it agrees with float32.
    """  # noqa: D301 - a raw text would not have click's mark of lines to keep
    from leptond.models import Store
    from leptond.models.importing import ImportOptions, import_variants

    options = ImportOptions(name, backend, quantization, tokenizer, pooling)
    store = Store(stores)
    with (
        _terminated_like_interrupted(),
        _naming(stores[0]),
        shown_progress(f"import {source}") as progress,
    ):
        imported = import_variants(source, store, options, progress=progress)
    for one in imported:
        verb = "imported" if one.is_new else "already there:"
        click.echo(f"{verb} {one.name} version {one.version} ({one.directory})")
        if one.advice:
            click.echo(f"advice: {one.name}: {one.advice}", err=True)
    if not no_measure and any(one.is_new for one in imported):
        _tell_speed(Store(stores[:1]), imported[0].name.model)


def _tell_speed(store: Store, model: str) -> None:
    """Run the model's variants, if it is an encoder, and say what came out."""
    from leptond.backend.registry import get_backend
    from leptond.models.measuring import advise, measure_encoders

    stored = store.find(model)
    if stored is None:  # removed since
        return
    with shown_progress(f"measure {model}") as progress:
        measurements = measure_encoders(stored, get_backend, progress)
    for measurement in measurements:
        click.echo(measurement, err=True)
    if advice := advise(measurements, f"{model}:{stored.default_variant}"):
        click.echo(f"advice: {advice}", err=True)


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
