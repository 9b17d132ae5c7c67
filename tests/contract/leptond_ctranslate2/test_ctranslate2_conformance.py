"""The plug-in against the conformance suite, on tiny models of every kind, made here."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from leptond.backend import BatchRow, ModelSource
from leptond.backend.conformance import BatchSessionConformance, BatchTensorConformance
from leptond.checkpoint import open_checkpoint
from leptond_ctranslate2.plugin import backend
from tests.fixtures.tiny_models.make import make_tiny_model


@pytest.fixture(scope="class")
def model(request, tmp_path_factory):
    """The model of a test class: its `name` and its `precision`."""
    suite, home = request.cls, tmp_path_factory.mktemp("tiny")
    directory = home / suite.precision
    directory.mkdir()
    checkpoint = open_checkpoint(make_tiny_model(suite.name, home / suite.name))
    backend.importer.write(checkpoint, directory, suite.precision, lambda stage, fraction: None)
    source = ModelSource(directory, suite.precision, options={"num_threads": 1})
    model = backend.load(source, lambda stage, fraction: None)
    yield model
    model.close()


class Rows(BatchSessionConformance):
    """Rows of random tokens with the options and tensors of a task."""

    name: str
    precision = "float32"
    max_tokens = 48
    lengths = (3, 1, 12, 7)
    options: ClassVar[dict[str, Any]] = {}
    tensors: ClassVar[dict[str, Any]] = {}

    def rows(self, model):
        dice = np.random.default_rng(self.seed)
        vocab_size = model.capabilities.vocab_size
        return [self.row(dice.integers(0, vocab_size, n)) for n in self.lengths]

    def bad_row(self, model):
        return self.row(np.array([model.capabilities.vocab_size]))

    def row(self, token_ids):
        return BatchRow(token_ids.tolist(), tensors=self.tensors, options=self.options)


class TestEmbedder(Rows, BatchTensorConformance):
    name = "embedder"


class TestEmbedderInInt8(Rows, BatchTensorConformance):
    name = "embedder"
    precision = "int8"
    options: ClassVar[dict[str, Any]] = {"task": "embed", "pooling": "cls"}


class TestClassifier(Rows, BatchTensorConformance):
    name = "bert-classifier"
    options: ClassVar[dict[str, Any]] = {"task": "classify"}

    def row(self, token_ids):
        types = np.arange(len(token_ids)) // 2 % 2
        return BatchRow(token_ids.tolist(), tensors={"token_type_ids": types}, options=self.options)


class TestTranslator(Rows):
    name = "t5-gated"
    options: ClassVar[dict[str, Any]] = {"max_tokens": 9}


class TestTranslatorThatStartsFromZeros(Rows):
    name = "marian"
    options: ClassVar[dict[str, Any]] = {"max_tokens": 9}
    tensors: ClassVar[dict[str, Any]] = {"target_prefix": np.array([5, 6])}


class TestTranslatorWithBeams(Rows):
    name = "nllb"
    options: ClassVar[dict[str, Any]] = {"max_tokens": 9, "beam_size": 3, "num_hypotheses": 2}


class TestTranslatorThatScores(Rows, BatchTensorConformance):
    name = "t5-relu"
    options: ClassVar[dict[str, Any]] = {"task": "score"}
    tensors: ClassVar[dict[str, Any]] = {"target": np.array([4, 5, 6])}


class TestGenerator(Rows):
    name = "llama"
    options: ClassVar[dict[str, Any]] = {"task": "generate", "max_tokens": 9}


class TestGeneratorInInt8(Rows):
    name = "llama"
    precision = "int8"
    options: ClassVar[dict[str, Any]] = {"task": "generate", "max_tokens": 9}


class TestGeneratorThatScores(Rows, BatchTensorConformance):
    name = "llama"
    lengths = (3, 2, 12, 7)  # of one token there is nothing to score
    options: ClassVar[dict[str, Any]] = {"task": "score"}
