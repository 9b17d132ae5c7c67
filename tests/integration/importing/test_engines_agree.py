"""The same encoder on CTranslate2 and on ONNX Runtime: the same rows, the same answers."""

from __future__ import annotations

import numpy as np
import pytest

from leptond.backend import BatchRow, BatchSession, ModelSource, SessionOptions
from leptond.backend.conformance.batch import run
from leptond.backend.registry import get_backend
from leptond.checkpoint import open_checkpoint
from tests.fixtures.tiny_models.make import make_tiny_model

pytestmark = pytest.mark.needs("ctranslate2")

ENGINES = ("ctranslate2", "onnxruntime")
TOLERANCE = 2e-5
CLASSIFIERS = (
    "bert-classifier",
    "bert-cross-encoder",
    "distilbert-classifier",
    "xlm-roberta-classifier",
)
LENGTHS = (9, 1, 30, 4, 30, 17)


def ignore_progress(stage, fraction):
    """Nobody watches."""


@pytest.fixture
def answers_of(tmp_path):
    """By engine, the only tensor of each row's answer."""

    def answered(name, rows_for, **options):
        checkpoint = open_checkpoint(make_tiny_model(name, tmp_path / name))
        found = {}
        for engine in ENGINES:
            directory = tmp_path / engine
            directory.mkdir()
            backend = get_backend(engine)
            backend.importer.write(checkpoint, directory, "float32", ignore_progress)
            source = ModelSource(directory, "float32", options={"num_threads": 1})
            model = backend.load(source, ignore_progress)
            session = model.open_session(SessionOptions(num_slots=len(LENGTHS), max_tokens=40))
            assert isinstance(session, BatchSession)
            answers = run(session, rows_for(model.capabilities, options))
            found[engine] = [list(answer.tensors.items()) for answer in answers]
            session.shutdown()
            model.close()
        return found

    return answered


def rows_without_types(capabilities, options):
    dice = np.random.default_rng(11)
    ids = [dice.integers(0, capabilities.vocab_size, length).tolist() for length in LENGTHS]
    return [BatchRow(row, options=options) for row in ids]


def rows_of_pairs(capabilities, options):
    return [
        BatchRow(
            row.token_ids,
            tensors={"token_type_ids": np.arange(len(row.token_ids)) // 2 % 2},
            options=options,
        )
        for row in rows_without_types(capabilities, options)
    ]


def assert_agreement(found):
    first, second = (found[engine] for engine in ENGINES)
    assert len(first) == len(second) == len(LENGTHS)
    for [(name, values)], [(other_name, others)] in zip(first, second, strict=True):
        assert name == other_name
        assert values.dtype == others.dtype == np.float32
        np.testing.assert_allclose(values, others, rtol=0, atol=TOLERANCE)
    # Rows differ from each other by far more than the engines do.
    assert np.abs(first[0][0][1] - first[2][0][1]).max() > 100 * TOLERANCE


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_logits_agree(answers_of, name):
    assert_agreement(answers_of(name, rows_without_types))


@pytest.mark.parametrize("name", ["bert-classifier", "bert-cross-encoder"])
def test_logits_of_pairs_agree(answers_of, name):
    assert_agreement(answers_of(name, rows_of_pairs))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_embeddings_agree(answers_of, pooling):
    assert_agreement(answers_of("embedder", rows_without_types, pooling=pooling))
