"""Classify and Rerank on tiny models with the recorded answers of transformers."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from leptond.v1 import classification_pb2, classification_pb2_grpc, common_pb2
from tests.fixtures.tiny_models.goldens import golden_rows
from tests.fixtures.tiny_store import tiny_store

pytestmark = [pytest.mark.asyncio, pytest.mark.needs("import", "ctranslate2")]

MODELS = (
    "bert-classifier",
    "bert-cross-encoder",
    "distilbert-classifier",
    "xlm-roberta-classifier",
)
BACKENDS = [
    "ctranslate2",
    pytest.param("onnxruntime", marks=pytest.mark.needs("onnxruntime")),
]


@pytest.fixture
def store():
    return tiny_store(*MODELS, "embedder")


def stub_of(served):
    return classification_pb2_grpc.ClassificationServiceStub(served.channel())


def one(text, pair=None):
    return classification_pb2.ClassifyInput(text=text, text_pair=pair)


def inputs_of(rows):
    return [one(row["text"]) if isinstance(row["text"], str) else one(*row["text"]) for row in rows]


def classify(*inputs, model="bert-classifier", **options):
    return classification_pb2.ClassifyRequest(model=model, inputs=inputs, **options)


def rerank(query, *documents, model="bert-cross-encoder", **options):
    return classification_pb2.RerankRequest(
        model=model, query=query, documents=documents, **options
    )


def by_label(result):
    return {label.label: label.score for label in result.labels}


def softmax(values):
    powers = np.exp(values - np.max(values))
    return powers / powers.sum()


def sigmoid(values):
    return 1 / (1 + np.exp(-np.asarray(values)))


async def refusal(answer):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    return caught.value


# ------------------------------------------------------------------------------------- labels
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
async def test_logits_equal_those_of_the_reference(start, backend, name):
    rows = golden_rows(name)
    async with start(store=tiny_store(name, backend=backend)) as served:
        stub = stub_of(served)
        answer = await stub.Classify(classify(*inputs_of(rows), model=name, raw_scores=True))
        labels = served.model(name, "float32").encoder.defaults.labels
    assert answer.method == classification_pb2.CLASSIFICATION_METHOD_HEAD
    for row, result in zip(rows, answer.results, strict=True):
        found = by_label(result)
        np.testing.assert_allclose([found[label] for label in labels], row["logits"], atol=2e-3)
        scores = [label.score for label in result.labels]
        assert scores == sorted(scores, reverse=True)


async def test_probabilities_are_of_one_label_or_of_each(start, store):
    row = golden_rows("bert-classifier")[0]
    async with start(store=store) as served:
        stub = stub_of(served)
        (single,) = (await stub.Classify(classify(one(row["text"]), multi_label=False))).results
        multi = await stub.Classify(classify(one(row["text"]), multi_label=True))
        labels = served.model("bert-classifier", "float32").encoder.defaults.labels
        (best,) = (await stub.Classify(classify(one(row["text"]), top_k=1))).results
    expected = dict(zip(labels, softmax(row["logits"]), strict=True))
    assert by_label(single) == pytest.approx(expected, abs=1e-3)
    expected = dict(zip(labels, sigmoid(row["logits"]), strict=True))
    assert by_label(multi.results[0]) == pytest.approx(expected, abs=1e-3)
    assert multi.multi_label
    assert [label.label for label in best.labels] == [max(expected, key=expected.__getitem__)]


async def test_texts_and_token_ids_may_be_mixed(start, store):
    first, second = golden_rows("bert-classifier")[:2]
    ids = classification_pb2.ClassifyInput(token_ids=common_pb2.TokenIds(ids=first["token_ids"]))
    async with start(store=store) as served:
        asked = classify(one(second["text"]), ids, one(second["text"]), raw_scores=True)
        answer = await stub_of(served).Classify(asked)
        labels = served.model("bert-classifier", "float32").encoder.defaults.labels
    for result, row in zip(answer.results, (second, first, second), strict=True):
        found = by_label(result)
        np.testing.assert_allclose([found[label] for label in labels], row["logits"], atol=2e-3)


async def test_the_longer_of_a_pair_is_cut_first(start, store):
    async with start(store=store) as served:
        stub = stub_of(served)
        cut = common_pb2.Truncation(max_tokens=10)
        answer = await stub.Classify(classify(one("food " * 30, "the man"), truncation=cut))
        same = await stub.Classify(classify(one("food " * 5, "the man")))
    assert answer.results[0].truncated_tokens == 25
    assert by_label(answer.results[0]) == pytest.approx(by_label(same.results[0]), abs=1e-5)


@pytest.mark.parametrize(
    ("wire", "code", "message"),
    [
        (classify(), "INVALID_ARGUMENT", "inputs is empty"),
        (classify(*[one("a")] * 10_001), "INVALID_ARGUMENT", "at most 10000"),
        (classify(classification_pb2.ClassifyInput()), "INVALID_ARGUMENT", "inputs[0] holds not"),
        (classify(one("a"), top_k=0), "INVALID_ARGUMENT", "top_k is 0"),
        (classify(one("a"), one("food " * 99)), "INVALID_ARGUMENT", "inputs[1].text has 101 tok"),
        (classify(one("a"), hypothesis_template="{}"), "INVALID_ARGUMENT", "goes with labels"),
        (classify(one("a"), unit=2), "UNIMPLEMENTED", "no spans"),
        (classify(one("a"), model="embedder"), "UNIMPLEMENTED", "does not classify; it does emb"),
        (
            classify(
                classification_pb2.ClassifyInput(
                    token_ids=common_pb2.TokenIds(ids=[2, 3]), text_pair="a"
                )
            ),
            "INVALID_ARGUMENT",
            "inputs[0].text_pair",
        ),
        (
            classify(
                one("a"),
                classification_pb2.ClassifyInput(token_ids=common_pb2.TokenIds(ids=[1 << 20])),
            ),
            "INVALID_ARGUMENT",
            "inputs[1].token_ids.ids",
        ),
    ],
)
async def test_what_cannot_be_labelled_is_refused_by_name(start, store, wire, code, message):
    async with start(store=store) as served:
        stub = stub_of(served)
        refused = await refusal(stub.Classify(wire))
        assert len((await stub.Classify(classify(one("a")))).results) == 1
    assert (refused.code().name, message in refused.details()) == (code, True), refused.details()


# ------------------------------------------------------------------------------------- relevance
@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_cross_encoder_reads_query_and_document_together(start, backend):
    rows = [row for row in golden_rows("bert-cross-encoder") if not isinstance(row["text"], str)]
    assert len(rows) > 1
    async with start(store=tiny_store("bert-cross-encoder", backend=backend)) as served:
        stub = stub_of(served)
        for row in rows:
            query, document = row["text"]
            raw = await stub.Rerank(rerank(query, document, raw_scores=True))
            assert raw.method == classification_pb2.RERANK_METHOD_CROSS_ENCODER
            assert raw.results[0].score == pytest.approx(row["logits"][0], abs=2e-3)
            scaled = await stub.Rerank(rerank(query, document))
            assert scaled.results[0].score == pytest.approx(sigmoid(row["logits"][0]), abs=1e-3)


async def test_documents_come_best_first_and_know_their_place(start, store):
    documents = ["the cat sleeps", "hello world", "the river is not green", "a small cat"]
    async with start(store=store) as served:
        stub = stub_of(served)
        every = await stub.Rerank(rerank("the cat", *documents, return_documents=True))
        alone = [await stub.Rerank(rerank("the cat", one_document)) for one_document in documents]
        two = await stub.Rerank(rerank("the cat", *documents, top_n=2))
    scores = [answer.results[0].score for answer in alone]
    assert [one.index for one in every.results] == sorted(range(4), key=lambda i: -scores[i])
    for one_result in every.results:
        assert one_result.document == documents[one_result.index]
        assert one_result.score == pytest.approx(scores[one_result.index], abs=1e-5)
    assert [one.index for one in two.results] == [one.index for one in every.results[:2]]
    assert not two.results[0].document


async def test_an_embedder_compares_by_similarity_and_says_so(start, store):
    documents = ["the cat sleeps", "hello world"]
    async with start(store=store) as served:
        stub = stub_of(served)
        raw = await stub.Rerank(rerank("the cat", *documents, model="embedder", raw_scores=True))
        scaled = await stub.Rerank(rerank("the cat", *documents, model="embedder"))
        refused = await refusal(
            stub.Rerank(rerank("the cat", *documents, model="embedder", method=1))
        )
    assert raw.method == classification_pb2.RERANK_METHOD_EMBEDDING_SIMILARITY
    assert {one.index for one in raw.results} == {0, 1}
    for one_raw, one_scaled in zip(raw.results, scaled.results, strict=True):
        assert -1 <= one_raw.score <= 1
        assert one_scaled.score == pytest.approx((1 + one_raw.score) / 2, abs=1e-6)
    assert refused.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "has RERANK_METHOD_EMBEDDING_SIMILARITY" in refused.details()


async def test_the_document_is_cut_and_not_the_query(start, store):
    cut = common_pb2.Truncation(max_tokens=12)
    async with start(store=store) as served:
        stub = stub_of(served)
        answer = await stub.Rerank(
            rerank("the man is eating", "food " * 30, truncation=cut, raw_scores=True)
        )
        same = await stub.Rerank(rerank("the man is eating", "food " * 5, raw_scores=True))
        refused = await refusal(stub.Rerank(rerank("the man " * 9, "food", truncation=cut)))
    assert answer.results[0].truncated_tokens == 25
    assert answer.results[0].score == pytest.approx(same.results[0].score, abs=1e-4)
    assert "leaves no room for the second" in refused.details()


@pytest.mark.parametrize(
    ("wire", "code", "message"),
    [
        (rerank("", "a"), "INVALID_ARGUMENT", "query is empty"),
        (rerank("a"), "INVALID_ARGUMENT", "documents is empty"),
        (rerank("a", *["b"] * 10_001), "INVALID_ARGUMENT", "at most 10000"),
        (rerank("a", "b", top_n=0), "INVALID_ARGUMENT", "top_n is 0"),
        (rerank("a", "b", "food " * 99), "INVALID_ARGUMENT", "documents[1] has 103 tokens"),
        (rerank("a", "b", method=3), "UNIMPLEMENTED", "has RERANK_METHOD_CROSS_ENCODER"),
        (rerank("a", "b", model="bert-classifier"), "UNIMPLEMENTED", "neither a cross-encoder"),
    ],
)
async def test_what_cannot_be_ranked_is_refused_by_name(start, store, wire, code, message):
    async with start(store=store) as served:
        stub = stub_of(served)
        refused = await refusal(stub.Rerank(wire))
        assert len((await stub.Rerank(rerank("a", "b"))).results) == 1
    assert (refused.code().name, message in refused.details()) == (code, True), refused.details()
