"""The default embedding model against the vectors that transformers gave."""

from __future__ import annotations

import numpy as np
import pytest

from leptond.backend import BatchRow, BatchSession, ModelSource, SessionOptions
from leptond.checkpoint import open_checkpoint
from leptond_ctranslate2.importer import writing
from leptond_ctranslate2.plugin import backend
from tests.fixtures.minilm import minilm_directory, minilm_reference
from tests.integration.leptond_ctranslate2.conftest import THREADS, ask

REFERENCE = minilm_reference()
FLOOR = {"float32": (0.9999, 0.9999), "int8": (0.99, 0.96)}
"""Least cosine on a text, and on the empty one."""


@pytest.fixture(scope="module")
def rows():
    from tokenizers import Tokenizer

    text = open_checkpoint(minilm_directory()).text
    tokenizer = Tokenizer.from_str(text.tokenizer_json)
    tokenizer.no_padding()
    tokenizer.enable_truncation(text.max_tokens)
    return [BatchRow(tokenizer.encode(item["text"]).ids) for item in REFERENCE]


def cosines(answers):
    found = np.array([answer.tensors["embedding"] for answer in answers])
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return (found * [item["embedding"] for item in REFERENCE]).sum(axis=1)


def assert_near(found, precision):
    on_text, on_nothing = FLOOR[precision]
    for item, cosine in zip(REFERENCE, found, strict=True):
        assert cosine >= (on_text if item["text"] else on_nothing), item["text"][:40]


@pytest.mark.parametrize("precision", list(FLOOR))
def test_embeddings_are_those_of_the_reference_batched_or_single(open_session, rows, precision):
    session = open_session("minilm", precision)
    assert_near(cosines(ask(session, rows)), precision)
    assert_near(cosines([ask(session, [row])[0] for row in rows]), precision)


def test_embeddings_with_bytes_of_the_reduced_range_are_as_near(rows, tmp_path, monkeypatch):
    """What a processor without VNNI is given."""
    monkeypatch.setattr(writing, "safe_int8_limit", lambda sets: 64)
    checkpoint = open_checkpoint(minilm_directory())
    facts = backend.importer.write(checkpoint, tmp_path, "int8", lambda stage, share: None)
    assert facts["int8_limit"] == 64
    source = ModelSource(tmp_path, "int8", options=THREADS)
    model = backend.load(source, lambda stage, share: None)
    session = model.open_session(SessionOptions(len(rows), 256))
    assert isinstance(session, BatchSession)
    assert_near(cosines(ask(session, rows)), "int8")
    session.shutdown()
    model.close()
