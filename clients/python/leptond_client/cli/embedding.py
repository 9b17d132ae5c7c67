"""`lepton embed`: vectors of texts, any number of them in bounded memory."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import click

from leptond_client.cli.failures import Failure, Interrupted, describe
from leptond_client.cli.lines import BadLine, Lines
from leptond_client.cli.options import TEXT, model_option, text_options, truncation_options
from leptond_client.cli.progress import Advance, progress_bar
from leptond_client.cli.session import Session
from leptond_client.cli.terminal import one_line, print_json, print_table
from leptond_client.values import ElementType, EmbeddedBatch, Embeddings

__all__ = ["embed"]

_SHOWN_NUMBERS = 4  # of each vector, in a table


@click.command()
@click.argument("texts", type=TEXT, nargs=-1)
@model_option
@text_options
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write an .npy file with one row per line of the input instead; the row of a "
              "text that failed is all zeros.")  # fmt: skip
@click.option("--normalize/--no-normalize", default=None,
              help="Whether vectors get length 1. By default as its files say.")  # fmt: skip
@click.option("--prompt-name", type=TEXT, help="Put this prompt of the model before each text.")
@click.option("--prompt", type=TEXT, help="Put this before each text.")
@click.option("--dimensions", type=click.IntRange(min=1), help="Keep the first so many numbers.")
@click.option("--element-type", type=click.Choice(["float32", "float16", "int8", "binary"]),
              help="The type of the numbers that travel. By default float32.")  # fmt: skip
@click.option("--as-stored", is_flag=True,
              help="With --output: write the numbers as they travel, int8 without its scales and "
              "binary packed.")  # fmt: skip
@click.option("--pooling", type=click.Choice(["mean", "cls", "last_token", "max"]),
              help="How token vectors become one. By default as its files say.")  # fmt: skip
@truncation_options
@click.option("--batch-size", type=click.IntRange(min=1), help="Texts per message.")
@click.pass_obj
def embed(
    session: Session,
    /,
    texts: tuple[str, ...],
    model: str | None,
    source: BinaryIO | None,
    field: str | None,
    *,
    output: Path | None,
    is_null_separated: bool,
    as_json: bool,
    as_stored: bool,
    **given: Any,
) -> None:
    """Make vectors of TEXTS, of a file or of standard input, one text per line.

    A text that fails is named on stderr with its line, and the others go on; the exit code is 1
    then. In a pipe one JSON object per line is printed.
    """
    if as_stored and output is None:
        raise click.UsageError("--as-stored needs --output")
    lines = Lines(texts, source, field=field, is_null_separated=is_null_separated)
    name = session.model(model, "embed")
    with ExitStack() as stack:
        is_table = output is None and not as_json and sys.stdout.isatty()
        sink: _Sink
        if output is not None:
            sink = _NpyFile(output, as_stored=as_stored)
        else:
            sink = _Table() if is_table else _JsonLines()
        stack.callback(sink.close)
        advance = stack.enter_context(
            progress_bar(lines.total_bytes, is_shown=output is not None or not sys.stdout.isatty())
        )
        run = _Run(lines, sink, advance, session.address)
        try:
            for batch in session.client.embed_stream(name, lines.texts(), **given):
                run.take(batch)
            run.finish()
        except KeyboardInterrupt as error:
            raise Interrupted(f"interrupted after {run.num_done} texts") from error
    if run.num_failed:
        raise Failure(f"{run.num_failed} of {run.num_done} texts failed")


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of a line: `index` is its vector's in the batch, None where it was not sent."""

    number: int
    index: int | None
    error: str


class _Sink(Protocol):
    """Where vectors go."""

    def write(self, results: list[_Result], embeddings: Embeddings) -> None:
        """Take the results of consecutive lines."""

    def close(self) -> None:
        """There are no more."""


class _Run:
    """Brings lines and their vectors together, and counts them."""

    def __init__(self, lines: Lines, sink: _Sink, advance: Advance, address: str) -> None:
        self._lines = lines
        self._sink = sink
        self._advance = advance
        self._address = address
        self.num_done = 0
        self.num_failed = 0

    def take(self, batch: EmbeddedBatch) -> None:
        """Write the lines of a batch, and the bad ones before and between them."""
        results = []
        index = num_bytes = 0
        while index < len(batch.embeddings):
            line = self._lines.read.popleft()
            num_bytes += line.num_bytes
            if isinstance(line, BadLine):
                results.append(_Result(line.number, None, line.reason))
                continue
            error = batch.errors.get(batch.first_index + index)
            said = describe(error, self._address) if error else ""
            results.append(_Result(line.number, index, said))
            index += 1
        self._write(results, batch.embeddings, num_bytes)

    def finish(self) -> None:
        """Write the bad lines at the end."""
        left = [line for line in self._lines.read if isinstance(line, BadLine)]
        results = [_Result(line.number, None, line.reason) for line in left]
        nothing = Embeddings(b"", ElementType.FLOAT32, 0, 0)
        self._write(results, nothing, sum(line.num_bytes for line in left))

    def _write(self, results: list[_Result], embeddings: Embeddings, num_bytes: int) -> None:
        for result in results:
            if result.error:
                self.num_failed += 1
                click.echo(one_line(f"lepton: line {result.number}: {result.error}"), err=True)
        self._sink.write(results, embeddings)
        self.num_done += len(results)
        self._advance(len(results), num_bytes)


class _JsonLines:
    """One object per line on stdout."""

    def write(self, results: list[_Result], embeddings: Embeddings) -> None:
        for result in results:
            if result.error or result.index is None:
                print_json({"line": result.number, "error": result.error})
                continue
            vector = embeddings[result.index]
            found = {"line": result.number, "embedding": list(vector)}
            print_json(found | {"num_tokens": embeddings.num_tokens[result.index]})

    def close(self) -> None:
        sys.stdout.flush()


class _Table:
    """A table on the terminal, when all is there."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, ...]] = []

    def write(self, results: list[_Result], embeddings: Embeddings) -> None:
        for result in results:
            if result.error or result.index is None:
                continue  # said on stderr
            shown = [f"{number:.4f}" for number in embeddings[result.index][:_SHOWN_NUMBERS]]
            tokens, size = embeddings.num_tokens[result.index], embeddings.dimensions
            self._rows.append((str(result.number), str(tokens), str(size), " ".join(shown) + " …"))

    def close(self) -> None:
        if self._rows:
            print_table(("line", "tokens", "dimensions", "embedding"), self._rows)


class _NpyFile:
    """Rows in an `.npy` file, one per line."""

    def __init__(self, path: Path, *, as_stored: bool) -> None:
        try:
            from leptond_client.arrays import Matrix
        except ModuleNotFoundError as error:
            raise click.UsageError(
                f"--output needs {error.name}: install leptond[numpy]"
            ) from error
        self._as_stored = as_stored
        try:
            self._matrix = Matrix(path)
        except OSError as error:
            raise click.FileError(str(path), error.strerror) from error

    def write(self, results: list[_Result], embeddings: Embeddings) -> None:
        places = [result.index for result in results]
        if embeddings:
            self._matrix.append(embeddings.numpy(as_stored=self._as_stored), places)
        else:
            self._matrix.append_zeros(len(places))

    def close(self) -> None:
        self._matrix.close()
