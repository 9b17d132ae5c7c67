"""Tiny models that are imported once per precision, and sessions over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leptond.backend import ModelSource
from leptond.checkpoint import open_checkpoint
from leptond_onnxruntime.importer import Precision
from leptond_onnxruntime.model import OnnxModel
from leptond_onnxruntime.plugin import backend
from tests.fixtures.tiny_gguf import TinyLlama, write_tiny_llama


def ignore_progress(stage: str, fraction: float) -> None:
    """Nobody watches."""


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory) -> Callable[[Precision], ModelSource]:
    """A tiny model with a long context, as the daemon would find it on disk."""
    home = tmp_path_factory.mktemp("tiny")
    gguf = write_tiny_llama(home / "tiny.gguf", TinyLlama(max_positions=2048))

    def source(precision: Precision = Precision.FLOAT32) -> ModelSource:
        directory: Path = home / precision
        if not directory.exists():
            directory.mkdir()
            backend.importer.write(open_checkpoint(gguf), directory, precision, ignore_progress)
        return ModelSource(directory, precision, options={"num_threads": 1})

    return source


@pytest.fixture
def tiny_model(tiny_source) -> Iterator[OnnxModel]:
    """The tiny model in float32, loaded."""
    model = OnnxModel.load(tiny_source(), ignore_progress)
    yield model
    model.close()
