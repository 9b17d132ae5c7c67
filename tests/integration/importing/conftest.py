from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from leptond.checkpoint import Checkpoint, open_checkpoint
from leptond_onnxruntime.importer import Precision, import_decoder
from tests.fixtures.smollm2 import smollm2_gguf


@pytest.fixture(scope="session")
def smollm2() -> Checkpoint:
    return open_checkpoint(smollm2_gguf())


@pytest.fixture(scope="session")
def smollm2_graphs(
    smollm2: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Precision], Path]:
    """Import the model once per precision."""

    @cache
    def graphs(precision: Precision) -> Path:
        directory = tmp_path_factory.mktemp(precision)
        import_decoder(smollm2, directory, precision, lambda *_: None)
        return directory

    return graphs
