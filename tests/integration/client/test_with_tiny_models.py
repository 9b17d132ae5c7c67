"""The client and `lepton` with the real daemon and tiny models of every kind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from leptond_client import AsyncClient, Client, InvalidRequest, ScoreInput
from tests.fixtures.daemon import DaemonProcess
from tests.fixtures.tiny_models.goldens import golden_rows
from tests.fixtures.tiny_store import tiny_store
from tests.integration.client.scripted import PATIENCE_S
from tests.integration.client.terminal import LEPTON
from tests.integration.client.test_with_daemon import EMBEDDER

pytestmark = pytest.mark.needs("import", "ctranslate2")

MODELS = ("embedder", "bert-classifier", "bert-cross-encoder", "marian", "llama")
TEXTS = ["a b c", "d", "the cat sat", "on a mat"] * 40


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    directory = tmp_path_factory.mktemp("daemon")
    store = tiny_store(*MODELS)
    with DaemonProcess(directory, "--listen", "127.0.0.1:0", "--store", str(store)) as daemon:
        yield daemon.wait_ready().address


@pytest.fixture
def client(address):
    with Client(address) as client:
        yield client


def lepton(address, *words, stdin=""):
    run = subprocess.run(
        [LEPTON, "--address", address, *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout, run.stderr


def objects(out):
    return [json.loads(line) for line in out.splitlines()]


# ----------------------------------------------------------------------------------------- embed
def test_bulk_and_single_vectors_are_the_same(client):
    singly = np.concatenate([client.embed("embedder", [text]).numpy() for text in TEXTS[:4]])
    stream = client.embed_stream("embedder", TEXTS, batch_size=7)
    found = np.concatenate([batch.embeddings.numpy() for batch in stream])
    assert found.shape == (len(TEXTS), singly.shape[1])
    assert np.allclose(found, np.tile(singly, (40, 1)), atol=1e-5)
    assert (stream.result.num_texts, stream.result.num_errors) == (len(TEXTS), 0)
    assert stream.result.info.model == "embedder:float32"


async def embedded(address):
    async with AsyncClient(address) as client:
        stream = client.embed_stream("embedder", TEXTS[:20], batch_size=3)
        return [list(vector) async for batch in stream for vector in batch.embeddings]


def test_asyncio_gets_the_same_vectors(address, client):
    expected = client.embed("embedder", TEXTS[:20]).numpy()
    assert np.allclose(asyncio.run(embedded(address)), expected, atol=1e-5)


@pytest.mark.parametrize(("kind", "least"), [("float16", 0.999), ("int8", 0.99)])
def test_small_numbers_are_near_the_exact_ones(client, kind, least):
    exact = client.embed("embedder", TEXTS[:4], normalize=True).numpy()
    near = client.embed("embedder", TEXTS[:4], normalize=True, element_type=kind).numpy()
    assert (np.sum(exact * near, axis=1) / np.linalg.norm(near, axis=1)).min() > least


def test_binary_numbers_are_the_signs(client):
    exact = client.embed("embedder", TEXTS[:4]).numpy()
    signs = client.embed("embedder", TEXTS[:4], element_type="binary")
    assert np.array_equal(signs.numpy(), exact > 0)


def test_one_text_that_is_too_long_does_not_end_the_rest(client):
    batches = list(client.embed_stream("embedder", ["a", "a " * 5000, "b"]))
    errors = {index: error for batch in batches for index, error in batch.errors.items()}
    assert list(errors) == [1]
    assert isinstance(errors[1], InvalidRequest)
    (batch,) = batches
    assert list(map(any, batch.embeddings)) == [True, False, True]
    cut = client.embed("embedder", ["a " * 5000], truncate=True)
    assert cut.truncated_tokens[0] > 0


def test_the_command_writes_the_vectors(address, client, tmp_path):
    path = tmp_path / "vectors.npy"
    code, out, err = lepton(address, "embed", "-o", str(path), stdin="\n".join(TEXTS))
    assert (code, out, err) == (0, "", "")
    assert np.allclose(np.load(path), client.embed("embedder", TEXTS).numpy(), atol=1e-5)


def test_the_command_names_a_line_that_is_wrong(address):
    code, out, err = lepton(address, "embed", stdin="a\n" + "b " * 5000 + "\nc\n")
    assert code == 1
    assert ["embedding" in found for found in objects(out)] == [True, False, True]
    assert err.startswith("lepton: line 2: ")


def test_ctrl_c_ends_a_bulk_and_says_how_far_it_came(address):
    with subprocess.Popen(
        [LEPTON, "--address", address, "embed", "--batch-size", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdin.write(b"a\n" * 20)
        process.stdin.flush()
        assert b"embedding" in process.stdout.readline()  # and now it waits for more
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert b"lepton: interrupted after " in err


def test_the_example_of_the_page_runs(address):
    page = (Path(__file__).parents[3] / "docs" / "client.md").read_text()
    found = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (code,) = (code for code in found if EMBEDDER in code)
    run = subprocess.run(
        [sys.executable, "-c", code.replace(EMBEDDER, "embedder")],
        env={**os.environ, "LEPTON_ADDRESS": address},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert run.stdout.splitlines()[-1] == "1000"


# ------------------------------------------------------------------------------ classify, rerank
def test_labels_are_those_of_the_reference(address, client):
    rows = [row for row in golden_rows("bert-classifier") if isinstance(row["text"], str)]
    texts = [row["text"] for row in rows]
    found = client.classify("bert-classifier", texts, raw_scores=True)
    for one, row in zip(found.results, rows, strict=True):
        scores = sorted((label.score for label in one.labels), reverse=True)
        assert np.allclose(scores, sorted(row["logits"], reverse=True), atol=1e-4)
    assert found.method == "head"
    best = client.classify("bert-classifier", texts[0], top_k=1)
    assert best.results[0].labels == (best.results[0].best,)
    source = "\n".join(texts) + "\n"
    code, out, _ = lepton(address, "classify", "-m", "bert-classifier", stdin=source)
    assert code == 0
    told = [found["labels"][0]["label"] for found in objects(out)]
    assert told == [one.best.label for one in found.results]


def test_documents_come_in_one_order_from_the_client_and_the_command(address, client):
    documents = ["a b c", "the cat sat", "d"]
    for model, method in [
        ("bert-cross-encoder", "cross_encoder"),
        ("embedder", "embedding_similarity"),
    ]:
        found = client.rerank(model, "the cat", documents, return_documents=True)
        assert found.method == method
        scores = [one.score for one in found.results]
        assert scores == sorted(scores, reverse=True)
        assert [one.document for one in found.results] == [
            documents[one.index] for one in found.results
        ]
        _, out, _ = lepton(address, "rerank", "-m", model, "the cat", *documents)
        assert [one["document"] for one in objects(out)] == [one.document for one in found.results]


# ------------------------------------------------------------------------------------- translate
def test_translations_are_the_same_whole_and_streamed(address, client):
    whole = client.translate("marian", TEXTS[:3], max_tokens=8)
    stream = client.translate_stream("marian", TEXTS[:3], max_tokens=8)
    pieces = [""] * 3
    for piece in stream:
        pieces[piece.input_index] += piece.text
    assert pieces == [one.text for one in whole.results]
    assert [one.text for one in stream.result.results] == pieces
    assert whole.results[0].sentences[0].alternatives[0].text == whole.results[0].text
    code, out, _ = lepton(
        address, "translate", "-m", "marian", "--max-tokens", "8", stdin="\n".join(TEXTS[:3])
    )
    assert code == 0
    assert [found["text"] for found in objects(out)] == pieces


# ----------------------------------------------------------------------------------------- score
def test_likelihoods_add_up_and_are_the_same_for_the_command(address, client):
    found = client.score("llama", ["a b", ScoreInput("b", prompt="a ")]).results
    for one in found:
        assert one.logprob == pytest.approx(sum(token.logprob for token in one.tokens), abs=1e-4)
        assert one.num_tokens == len(one.tokens) > 0
    (sums,) = client.score("llama", "a b", omit_token_logprobs=True).results
    assert sums.tokens == ()
    code, out, _ = lepton(address, "score", "-m", "llama", "a b")
    assert code == 0
    assert objects(out)[0]["logprob"] == pytest.approx(sums.logprob, abs=1e-4)
