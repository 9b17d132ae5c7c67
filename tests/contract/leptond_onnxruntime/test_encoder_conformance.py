"""Encoders of the plug-in against the conformance suite and what transformers made of them."""

from __future__ import annotations

import numpy as np
import pytest

from leptond.backend import BatchRow, ModelSource
from leptond.backend.conformance import BatchTensorConformance
from leptond.backend.conformance.batch import run
from leptond.checkpoint import open_checkpoint
from leptond_onnxruntime.plugin import backend
from tests.fixtures.tiny_models.goldens import golden_rows
from tests.fixtures.tiny_models.make import make_tiny_model

TOLERANCE = {"float32": 1e-5, "int8": 0.1}


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


class Encoders(BatchTensorConformance):
    name: str
    precision = "float32"
    max_tokens = 48
    tolerance = 1e-5

    def test_answers_are_those_of_transformers(self, session):
        rows = golden_rows(self.name)
        asked = []
        for row in rows:
            name = "token_type_ids"
            tensors = {name: np.array(row[name], np.int64)} if name in row else {}
            asked.append(BatchRow(row["token_ids"], tensors=tensors))
        for row, answer in zip(rows, run(session, asked), strict=True):
            (found,) = answer.tensors.values()
            wanted = row["logits"] if "logits" in row else row["embeddings"]["mean"]
            np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[self.precision])


class TestEmbedder(Encoders):
    name = "embedder"


class TestEmbedderInInt8(Encoders):
    name = "embedder"
    precision = "int8"


class TestXlmRoberta(Encoders):
    name = "xlm-roberta-classifier"


class TestDistilBert(Encoders):
    name = "distilbert-classifier"


class TestBert(Encoders):
    name = "bert-classifier"
