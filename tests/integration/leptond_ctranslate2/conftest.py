"""Models of the engine, imported and loaded once per test session, and how they are asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leptond.backend import BatchRow, BatchSession, EmittedChunk, ModelSource, SessionOptions
from leptond.checkpoint import open_checkpoint
from leptond_ctranslate2.model import CTranslate2Model
from leptond_ctranslate2.plugin import backend
from tests.fixtures.minilm import minilm_directory
from tests.fixtures.smollm2 import smollm2_gguf
from tests.fixtures.tiny_models.make import TINY_MODELS, make_tiny_model

THREADS = {"num_threads": 2}


@dataclass
class Answer:
    """What one row was given."""

    token_ids: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    is_final: bool = False

    def take(self, chunk: EmittedChunk) -> None:
        """Add a chunk."""
        self.token_ids += chunk.token_ids
        self.scores += chunk.scores
        self.tensors |= chunk.tensors
        self.is_final = chunk.is_final


def ask(session: BatchSession, rows: Sequence[BatchRow]) -> list[Answer]:
    """Run rows together and read them to their end."""
    answers = [Answer() for _ in rows]

    def emit(index: int, chunk: EmittedChunk) -> bool:
        answers[index].take(chunk)
        return True

    session.run(rows, emit)
    assert all(answer.is_final for answer in answers)
    return answers


@pytest.fixture(scope="session")
def find_source(tmp_path_factory):
    """Where a model of a name lies in a precision: tiny ones, `smollm2`, `minilm`."""
    home = tmp_path_factory.mktemp("ctranslate2")

    def source_of(name: str) -> Path:
        if name == "smollm2":
            return smollm2_gguf()
        if name == "minilm":
            return minilm_directory()
        assert name in TINY_MODELS
        made = home / name
        return made if made.exists() else make_tiny_model(name, made)

    @cache
    def found(name: str, precision: str) -> ModelSource:
        directory = home / f"{name}.{precision}"
        directory.mkdir()
        checkpoint = open_checkpoint(source_of(name))
        backend.importer.write(checkpoint, directory, precision, lambda stage, share: None)
        return ModelSource(directory, precision, options=THREADS)

    return lambda name, precision="float32": found(name, precision)


@pytest.fixture(scope="session")
def load(find_source) -> Iterator[Any]:
    """The loaded model of a name and a precision."""
    models: list[CTranslate2Model] = []

    @cache
    def loaded(name: str, precision: str) -> CTranslate2Model:
        models.append(CTranslate2Model.load(find_source(name, precision), lambda what, share: 0))
        return models[-1]

    yield lambda name, precision="float32": loaded(name, precision)
    for model in models:
        model.close()


@pytest.fixture
def open_session(load):
    """A session of a model, shut down after the test."""
    sessions = []

    def opened(name: str, precision: str = "float32", *, num_rows: int = 32, max_tokens: int = 0):
        model = load(name, precision)
        limit = model.capabilities.max_context_tokens
        sessions.append(model.open_session(SessionOptions(num_rows, max_tokens or limit)))
        return sessions[-1]

    yield opened
    for session in sessions:
        session.shutdown()
