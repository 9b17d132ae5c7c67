from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from leptond.checkpoint import open_checkpoint
from leptond_onnxruntime.importer import GraphSpec, Precision, import_decoder
from tests.fixtures.tiny_gguf import TinyLlama, write_tiny_llama


@dataclass(frozen=True)
class Imported:
    """A tiny model as it was written: the source, the graphs and what the importer reported."""

    source: Path
    directory: Path
    spec: GraphSpec
    progress: list[tuple[str, float]]


@pytest.fixture
def import_tiny(tmp_path: Path) -> Callable[..., Imported]:
    """Import a tiny model that differs from the plain one as told."""

    def imported(precision: Precision = Precision.FLOAT32, **differences: Any) -> Imported:
        source = tmp_path / "m.gguf"
        if not source.exists():
            write_tiny_llama(source, TinyLlama(**differences))
        directory = tmp_path / precision
        directory.mkdir()
        progress: list[tuple[str, float]] = []
        spec = import_decoder(
            open_checkpoint(source),
            directory,
            precision,
            lambda what, share: progress.append((what, share)),
        )
        return Imported(source, directory, spec, progress)

    return imported
