"""The default chat model in every precision, loaded once per test session."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from leptond.backend import ModelSource
from leptond.checkpoint import open_checkpoint
from leptond_onnxruntime.importer import Precision
from leptond_onnxruntime.model import OnnxModel
from leptond_onnxruntime.plugin import backend
from tests.fixtures.smollm2 import smollm2_gguf

READY = os.environ.get("LEPTOND_TEST_MODEL_DIR")
"""A directory with variants that were imported before: `<precision>/graph.json` and so on."""


def ignore_progress(stage: str, fraction: float) -> None:
    """Nobody watches."""


@pytest.fixture(scope="session")
def find_variant() -> Iterator[Callable[[Precision], ModelSource]]:
    """Where the model of a precision lies; imports it unless it is there."""
    with TemporaryDirectory() as scratch:

        @cache
        def found(precision: Precision) -> ModelSource:
            if READY is not None:
                return ModelSource(Path(READY) / precision, precision)
            directory = Path(scratch) / precision
            directory.mkdir()
            checkpoint = open_checkpoint(smollm2_gguf())
            backend.importer.write(checkpoint, directory, precision, ignore_progress)
            return ModelSource(directory, precision)

        yield found


@pytest.fixture(scope="session")
def load_model(find_variant) -> Iterator[Callable[[Precision], OnnxModel]]:
    """The model of a precision, loaded."""
    models = []

    @cache
    def loaded(precision: Precision) -> OnnxModel:
        models.append(OnnxModel.load(find_variant(precision), ignore_progress))
        return models[-1]

    yield loaded
    for model in models:
        model.close()


@pytest.fixture
def report(capsys) -> Callable[[str], None]:
    """Print a line although the test passes."""

    def printed(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n  {line}")

    return printed
