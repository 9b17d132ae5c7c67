from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from leptond.checkpoint import Checkpoint, open_checkpoint
from leptond_onnxruntime.importer import Precision, import_decoder
from tests.fixtures.smollm2 import smollm2_gguf


@pytest.fixture(scope="session")
def smollm2() -> Checkpoint:
    return open_checkpoint(smollm2_gguf())


@pytest.fixture(scope="session")
def smollm2_graphs(smollm2: Checkpoint) -> Iterator[Callable[[Precision], Path]]:
    """Import the model once per precision; a gigabyte, so it does not outlive the session."""
    with TemporaryDirectory() as scratch:

        @cache
        def graphs(precision: Precision) -> Path:
            directory = Path(scratch) / precision
            directory.mkdir()
            import_decoder(smollm2, directory, precision, lambda *_: None)
            return directory

        yield graphs
