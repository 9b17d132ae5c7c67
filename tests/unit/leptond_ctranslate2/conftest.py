from __future__ import annotations

from pathlib import Path

import pytest

from leptond.checkpoint import open_checkpoint
from tests.fixtures.tiny_models.make import make_tiny_model


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory):
    """Tiny checkpoints by name, made once."""
    home = tmp_path_factory.mktemp("checkpoints")

    def opened(name: str):
        directory = home / name
        return open_checkpoint(
            directory if directory.exists() else make_tiny_model(name, directory)
        )

    return opened


@pytest.fixture
def written(tiny_checkpoints, tmp_path):
    """Write a tiny model in a precision; returns the variant's directory."""
    from leptond_ctranslate2.importer import write_model
    from leptond_ctranslate2.precision import Precision

    def write(name: str, precision: str = "float32") -> Path:
        directory = tmp_path / f"{name}.{precision}"
        directory.mkdir()
        write_model(tiny_checkpoints(name), directory, Precision(precision), lambda what, share: 0)
        return directory

    return write
