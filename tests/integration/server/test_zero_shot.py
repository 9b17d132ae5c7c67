"""Labels of the caller's own, by a chat model."""

from __future__ import annotations

import grpc
import pytest

from leptond.v1 import classification_pb2, classification_pb2_grpc, common_pb2
from tests.fixtures.tiny_store import tiny_store

pytestmark = [pytest.mark.asyncio, pytest.mark.needs("import", "ctranslate2")]

REVIEWS = {
    "What a wonderful film, I loved every minute of it!": "positive",
    "Terrible. The worst meal that I have ever had, cold and disgusting.": "negative",
    "I am so happy with this, it is excellent and works perfectly.": "positive",
    "I hate it. It broke on the first day and nobody helped me.": "negative",
}


def stub_of(served):
    return classification_pb2_grpc.ClassificationServiceStub(served.channel())


def classify(*texts, labels=("cat", "dog"), model="llama", **options):
    inputs = [classification_pb2.ClassifyInput(text=text) for text in texts]
    return classification_pb2.ClassifyRequest(model=model, inputs=inputs, labels=labels, **options)


def by_label(result):
    return {label.label: label.score for label in result.labels}


async def refusal(answer):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    return caught.value


@pytest.mark.needs("onnxruntime")
async def test_a_chat_model_tells_reviews_apart(start, default_chat_store):
    name = default_chat_store.variant("float32")
    async with start(store=default_chat_store.directory) as served:
        asked = classify(*REVIEWS, labels=["positive", "negative"], model=name)
        answer = await stub_of(served).Classify(asked, timeout=120)
    assert answer.method == classification_pb2.CLASSIFICATION_METHOD_LIKELIHOOD
    best = [result.labels[0].label for result in answer.results]
    assert best == list(REVIEWS.values())
    for result in answer.results:
        assert sum(by_label(result).values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("ctranslate2", "llama"),
        pytest.param("onnxruntime", "llama", marks=pytest.mark.needs("onnxruntime")),
        ("ctranslate2", "t5-gated"),
    ],
)
async def test_probabilities_are_of_one_label_or_of_each(start, backend, name):
    labels = ["cat", "dog", "red horse"]
    async with start(store=tiny_store(name, backend=backend)) as served:
        stub = stub_of(served)
        one = await stub.Classify(classify("a man", "a dog {}", labels=labels, model=name))
        each = await stub.Classify(classify("a man", labels=labels, model=name, multi_label=True))
        best = await stub.Classify(classify("a man", labels=labels, model=name, top_k=1))
        raw = await stub.Classify(classify("a man", labels=labels, model=name, raw_scores=True))
        load = served.model(name, "float32").scheduler.load()
    assert len(one.results) == 2
    for result in one.results:
        scores = [label.score for label in result.labels]
        assert sum(scores) == pytest.approx(1)
        assert scores == sorted(scores, reverse=True)
    assert each.multi_label
    assert all(0 < score < 1 for score in by_label(each.results[0]).values())
    (first,) = best.results[0].labels
    assert first.label == one.results[0].labels[0].label
    order = [label.label for label in raw.results[0].labels]
    assert order == [label.label for label in one.results[0].labels]
    assert one.info.usage.prompt_tokens > 50
    assert load.num_running == load.num_queued == 0


async def test_the_template_is_what_is_asked(start):
    async with start(store=tiny_store("llama")) as served:
        stub = stub_of(served)
        plain = await stub.Classify(classify("a man"))
        framed = await stub.Classify(classify("a man", hypothesis_template="it is a {}."))
        same = await stub.Classify(classify("a man", labels=["it is a cat.", "it is a dog."]))
    assert by_label(plain.results[0]) != by_label(framed.results[0])
    assert list(by_label(framed.results[0]).values()) == pytest.approx(
        list(by_label(same.results[0]).values()), abs=1e-5
    )


@pytest.mark.parametrize(
    ("wire", "code", "message"),
    [
        (classify(), "INVALID_ARGUMENT", "inputs is empty"),
        (classify("a", labels=["x", "x"]), "INVALID_ARGUMENT", "a label twice"),
        (classify("a", labels=["x", " "]), "INVALID_ARGUMENT", "labels[1] is empty"),
        (classify("a", ""), "INVALID_ARGUMENT", "inputs[1]: with labels"),
        (classify("a", hypothesis_template="it is"), "INVALID_ARGUMENT", "one {} for the label"),
        (classify("a", top_k=0), "INVALID_ARGUMENT", "top_k is 0"),
        (classify("a", "b", "food " * 400), "INVALID_ARGUMENT", "inputs[2]"),
        (classify("a", "food " * 45), "INVALID_ARGUMENT", "inputs[1]: "),
        (classify("a", "food " * 45, multi_label=True), "INVALID_ARGUMENT", "inputs[1]: "),
        (classify(*["a"] * 5001), "INVALID_ARGUMENT", "more than 10000"),
        (classify("a", truncation=common_pb2.Truncation()), "UNIMPLEMENTED", "truncation"),
        (classify("a", model="embedder"), "UNIMPLEMENTED", "labels of its own, or none"),
        (classify("a", model="bert-classifier"), "UNIMPLEMENTED", "labels of its own"),
    ],
)
async def test_what_makes_no_question_is_refused_by_name(start, wire, code, message):
    async with start(store=tiny_store("llama", "embedder", "bert-classifier")) as served:
        stub = stub_of(served)
        refused = await refusal(stub.Classify(wire))
        assert len((await stub.Classify(classify("a"))).results) == 1
    assert (refused.code().name, message in refused.details()) == (code, True), refused.details()
