"""Embed and EmbedStream on real models, tiny and not so tiny, through the real front."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from leptond.scheduler import SchedulerOptions
from leptond.server.bulk import _MAX_IN_FLIGHT, BulkEmbedding
from leptond.v1 import common_pb2, embedding_pb2, embedding_pb2_grpc, management_pb2
from tests.fixtures.minilm import minilm_directory, minilm_reference
from tests.fixtures.tiny_models.goldens import golden_rows
from tests.fixtures.tiny_store import imported_store, tiny_store

pytestmark = [pytest.mark.asyncio, pytest.mark.needs("import", "ctranslate2")]

BACKENDS = [
    "ctranslate2",
    pytest.param("onnxruntime", marks=pytest.mark.needs("onnxruntime")),
]
NO_SIDE = common_pb2.Truncation.FromString(b"\x08\x09")  # a number that no side has
ELEMENTS = {
    embedding_pb2.ELEMENT_TYPE_FLOAT32: "<f4",
    embedding_pb2.ELEMENT_TYPE_FLOAT16: "<f2",
    embedding_pb2.ELEMENT_TYPE_INT8: "i1",
}


def stub_of(served):
    return embedding_pb2_grpc.EmbeddingServiceStub(served.channel())


def vectors(batch):
    if batch.element_type == embedding_pb2.ELEMENT_TYPE_BINARY:
        bits = np.unpackbits(np.frombuffer(batch.data, np.uint8).reshape(batch.num_vectors, -1), 1)
        return bits[:, : batch.dimensions]
    found = np.frombuffer(batch.data, ELEMENTS[batch.element_type]).astype(np.float32)
    found = found.reshape(batch.num_vectors, batch.dimensions)
    return found * np.array(batch.scales)[:, None] if batch.scales else found


def cosines(one, other):
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(axis=1) / lengths


def request(*texts, model="embedder", **options):
    wire = embedding_pb2.EmbedOptions(**options)
    return embedding_pb2.EmbedRequest(model=model, texts=texts, embedding=wire)


def texts_of(count):
    return [f"text {number} of the man and the food" for number in range(count)]


def text_rows():
    return [row for row in golden_rows("embedder") if isinstance(row["text"], str)]


async def refusal(answer):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    return caught.value


@pytest.fixture
def store():
    return tiny_store("embedder", "bert-classifier")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_vectors_equal_those_of_the_reference(start, backend):
    rows = text_rows()
    expected = np.array([row["embeddings"]["mean"] for row in rows])
    async with start(store=tiny_store("embedder", backend=backend)) as served:
        stub = stub_of(served)
        together = await stub.Embed(request(*(row["text"] for row in rows)))
        alone = [await stub.Embed(request(row["text"])) for row in rows]
    assert list(together.embeddings.num_tokens) == [len(row["token_ids"]) for row in rows]
    singles = np.concatenate([vectors(one.embeddings) for one in alone])
    assert cosines(vectors(together.embeddings), expected).min() > 0.9999
    assert cosines(singles, expected).min() > 0.9999
    assert together.info.usage.prompt_tokens == sum(len(row["token_ids"]) for row in rows)
    assert together.info.model == "embedder:float32"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("precision", "least"), [("float32", 0.9999), ("int8", 0.99)])
async def test_minilm_is_near_its_reference(start, backend, precision, least):
    items = minilm_reference()
    expected = np.array([item["embedding"] for item in items])
    store = imported_store(minilm_directory(), "minilm", backend=backend, precision=precision)
    async with start(store=store) as served:
        asked = request(*(item["text"] for item in items), model="minilm")
        answer = await stub_of(served).Embed(asked)
    found = cosines(vectors(answer.embeddings), expected)
    is_empty = np.array([item["text"] == "" for item in items])
    assert found[~is_empty].min() >= least
    assert found[is_empty].min() >= min(least, 0.96)
    assert answer.embeddings.normalized


@pytest.mark.parametrize(
    ("pooling", "name"),
    [
        (embedding_pb2.POOLING_MEAN, "mean"),
        (embedding_pb2.POOLING_CLS, "cls"),
        (embedding_pb2.POOLING_LAST_TOKEN, "last"),
    ],
)
async def test_another_pooling_than_the_models_own_can_be_had(start, store, pooling, name):
    rows = text_rows()
    expected = np.array([row["embeddings"][name] for row in rows])
    async with start(store=store) as served:
        asked = request(*(row["text"] for row in rows), pooling=pooling)
        answer = await stub_of(served).Embed(asked)
    assert answer.embeddings.pooling == pooling
    assert cosines(vectors(answer.embeddings), expected).min() > 0.9999


async def test_every_type_of_number_holds_the_same_vectors(start, store):
    texts = texts_of(5)
    async with start(store=store) as served:
        stub = stub_of(served)
        plain = vectors((await stub.Embed(request(*texts, normalize=False))).embeddings)
        for element_type in ELEMENTS:
            asked = request(*texts, normalize=False, element_type=element_type)
            batch = (await stub.Embed(asked)).embeddings
            assert cosines(vectors(batch), plain).min() > 0.999
            assert np.allclose(vectors(batch), plain, atol=np.abs(plain).max() / 120)
        binary = request(*texts, normalize=False, element_type=embedding_pb2.ELEMENT_TYPE_BINARY)
        bits = vectors((await stub.Embed(binary)).embeddings)
    np.testing.assert_array_equal(bits, plain > 0)


async def test_dimensions_are_cut_before_a_vector_is_normalised(start, store):
    async with start(store=store) as served:
        stub = stub_of(served)
        plain = vectors((await stub.Embed(request("food", normalize=False))).embeddings)
        cut = (await stub.Embed(request("food", normalize=True, dimensions=5))).embeddings
    assert cut.dimensions == 5
    np.testing.assert_allclose(
        vectors(cut)[0], plain[0, :5] / np.linalg.norm(plain[0, :5]), rtol=1e-5
    )


async def test_a_named_prompt_is_put_in_front(start, store):
    async with start(store=store) as served:
        stub = stub_of(served)
        named = await stub.Embed(request("the man", prompt_name="query"))
        given = await stub.Embed(request("the man", prompt="hello "))
        plain = await stub.Embed(request("hello the man"))
        other = await stub.Embed(request("the man"))
    assert named.embeddings.data == given.embeddings.data == plain.embeddings.data
    assert other.embeddings.data != plain.embeddings.data


async def test_a_long_text_is_cut_where_that_is_allowed(start, store):
    long = "food " * 100
    async with start(store=store) as served:
        stub = stub_of(served)
        sides = {}
        for side in (common_pb2.TRUNCATION_SIDE_LEFT, common_pb2.TRUNCATION_SIDE_RIGHT):
            cut = common_pb2.Truncation(side=side, max_tokens=10)
            answer = await stub.Embed(request("man " + long, "man", truncation=cut))
            assert list(answer.embeddings.num_tokens) == [10, 3]
            assert list(answer.embeddings.truncated_tokens) == [93, 0]
            sides[side] = answer.embeddings.data
        refused = await refusal(stub.Embed(request("man", long)))
    assert len(set(sides.values())) == 2
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "texts[1] has 102 tokens; at most 48 fit" in refused.details()


@pytest.mark.parametrize(
    ("wire", "code", "message"),
    [
        (request(), "INVALID_ARGUMENT", "exactly one of texts and token_ids"),
        (request("a", dimensions=0), "INVALID_ARGUMENT", "embedding.dimensions is 0"),
        (request("a", dimensions=999), "INVALID_ARGUMENT", "from 1 to"),
        (request("a", prompt_name="none"), "INVALID_ARGUMENT", "defines document, query"),
        (request("a", prompt="b", prompt_name="query"), "INVALID_ARGUMENT", "exclude"),
        (request("a", element_type=77), "INVALID_ARGUMENT", "element_type is 77"),
        (request("a", pooling=embedding_pb2.POOLING_MAX), "UNIMPLEMENTED", "mean, cls, last"),
        (
            request("a", form=embedding_pb2.EMBEDDING_FORM_SPARSE),
            "UNIMPLEMENTED",
            "one dense vector",
        ),
        (request("a", truncation=common_pb2.Truncation(max_tokens=0)), "INVALID_ARGUMENT", "0"),
        (request("a", truncation=common_pb2.Truncation(max_tokens=2)), "INVALID_ARGUMENT", "2"),
        (request("a", truncation=NO_SIDE), "INVALID_ARGUMENT", "side is 9"),
        (request(*["a"] * 10_001), "INVALID_ARGUMENT", "at most 10000"),
        (request("a", model="bert-classifier"), "UNIMPLEMENTED", "does not embed; it does class"),
        (
            embedding_pb2.EmbedRequest(
                model="embedder", token_ids=[common_pb2.TokenIds(ids=[1 << 20])]
            ),
            "INVALID_ARGUMENT",
            "token_ids[0].ids",
        ),
        (
            embedding_pb2.EmbedRequest(model="embedder", adapter_name="x", texts=["a"]),
            "UNIMPLEMENTED",
            "adapter_name",
        ),
    ],
)
async def test_what_cannot_be_is_refused_by_name(start, store, wire, code, message):
    async with start(store=store) as served:
        stub = stub_of(served)
        refused = await refusal(stub.Embed(wire))
        assert (await stub.Embed(request("a"))).embeddings.num_vectors == 1
    assert refused.code().name == code
    assert message in refused.details()


async def test_token_ids_are_taken_as_they_are(start, store):
    row = text_rows()[0]
    wire = embedding_pb2.EmbedRequest(
        model="embedder", token_ids=[common_pb2.TokenIds(ids=row["token_ids"])]
    )
    async with start(store=store) as served:
        answer = await stub_of(served).Embed(wire)
    assert cosines(vectors(answer.embeddings), np.array([row["embeddings"]["mean"]]))[0] > 0.9999


async def test_the_list_of_models_says_what_an_embedder_and_a_classifier_can(start, store):
    async with start(store=store) as served:
        for name in ("embedder", "bert-classifier"):
            loading = management_pb2.LoadModelRequest(model=name)
            assert [one async for one in served.management().LoadModel(loading)]
        listed = await served.management().ListModels(management_pb2.ListModelsRequest())
    facts = {model.name: model.variants[0].capabilities for model in listed.models}
    embedder, classifier = facts["embedder"], facts["bert-classifier"]
    row = text_rows()[0]
    assert embedder.embedding_dimensions == len(row["embeddings"]["mean"])
    assert list(embedder.prompt_names) == ["document", "query"]
    assert embedder.max_input_tokens == 48
    assert classifier.embedding_dimensions == 0
    assert classifier.labels


# ------------------------------------------------------------------------------------- in bulk
def setup(**options):
    return embedding_pb2.EmbedStreamSetup(
        model="embedder", embedding=embedding_pb2.EmbedOptions(**options)
    )


def messages(batches, **options):
    for number, texts in enumerate(batches):
        yield embedding_pb2.EmbedStreamRequest(
            setup=setup(**options) if number == 0 else None, batch_id=number * 7, texts=texts
        )


@pytest.fixture
def numbers_in_flight(monkeypatch):
    """How many batches of a stream were with the daemon whenever one more was read."""
    numbers = []
    submit = BulkEmbedding._submit

    async def counting(bulk, *args):
        batch = await submit(bulk, *args)
        numbers.append(len(bulk._in_flight))
        return batch

    monkeypatch.setattr(BulkEmbedding, "_submit", counting)
    return numbers


async def test_ten_thousand_texts_come_back_whole_and_in_order(start, store, numbers_in_flight):
    texts = texts_of(10_000)
    batches = [texts[first : first + 100] for first in range(0, len(texts), 100)]
    num_answered = 0
    found = []
    info = None
    async with start(store=store) as served:
        stub = stub_of(served)
        async for answer in stub.EmbedStream(messages(batches)):
            if answer.HasField("info"):
                info = answer.info
                continue
            assert answer.batch_id == 7 * num_answered
            num_answered += 1
            assert not answer.errors
            found.append(vectors(answer.embeddings))
        expected = await stub.Embed(request(*texts[::500]))
        load = served.model("embedder", "float32").scheduler.load()
    everything = np.concatenate(found)
    assert len(everything) == 10_000
    np.testing.assert_allclose(everything[::500], vectors(expected.embeddings), atol=1e-5)
    assert info.usage.prompt_tokens > 10_000
    assert load.num_running == load.num_queued == 0
    assert len(numbers_in_flight) == len(batches)
    assert 2 <= max(numbers_in_flight) <= _MAX_IN_FLIGHT + 2


async def test_what_is_wrong_with_a_text_is_told_beside_its_neighbours(start, store):
    long = "food " * 100
    async with start(store=store) as served:
        stub = stub_of(served)
        answers = [one async for one in stub.EmbedStream(messages([["man", long, "food"], [long]]))]
        alone = await stub.Embed(request("man", "food"))
        refused = await refusal(stub.Embed(request("man", long)))
    first, second, last = answers
    assert [error.index for error in first.errors] == [1]
    rows = vectors(first.embeddings)
    assert not rows[1].any()
    np.testing.assert_allclose(rows[[0, 2]], vectors(alone.embeddings), atol=1e-5)
    assert [error.index for error in second.errors] == [0]
    assert last.HasField("info")
    (detail,) = [
        one
        for one in first.errors[0].status.details
        if one.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    ]
    info = error_details_pb2.ErrorInfo()
    detail.Unpack(info)
    assert info.reason == "REQUEST_TOO_LARGE"
    whole = dict(refused.trailing_metadata())["grpc-status-details-bin"]
    assert first.errors[0].status.message == Status.FromString(whole).message


@pytest.mark.parametrize(
    ("wires", "message"),
    [
        ([embedding_pb2.EmbedStreamRequest(texts=["a"])], "the first message has no setup"),
        ([], "the first message has no setup"),
        (
            [
                embedding_pb2.EmbedStreamRequest(setup=setup(), texts=["a"]),
                embedding_pb2.EmbedStreamRequest(setup=setup(), texts=["a"]),
            ],
            "setup belongs into the first message",
        ),
        (
            [
                embedding_pb2.EmbedStreamRequest(setup=setup(), texts=["a"]),
                embedding_pb2.EmbedStreamRequest(),
            ],
            "exactly one of texts and token_ids",
        ),
        ([embedding_pb2.EmbedStreamRequest(setup=setup(dimensions=0))], "dimensions is 0"),
    ],
)
async def test_a_stream_that_cannot_be_is_refused_after_what_came_before(
    start, store, wires, message
):
    async with start(store=store) as served:
        call = stub_of(served).EmbedStream(iter(wires))
        answers = []

        async def read():
            while (answer := await call.read()) is not grpc.aio.EOF:
                answers.append(answer)
            raise AssertionError("the stream ended well")

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read()
        load = served.model("embedder", "float32").scheduler.load() if answers else None
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in caught.value.details()
    assert len(answers) == max(0, len(wires) - 1)
    assert load is None or load.num_running == load.num_queued == 0


async def test_a_caller_that_leaves_half_way_frees_everything(start, store):
    scheduler = SchedulerOptions(batch_token_budget=64)
    async with start(store=store, scheduler=scheduler) as served:
        call = stub_of(served).EmbedStream(messages([texts_of(500)] * 50))
        async for _ in call:
            break
        call.cancel()
        await asyncio.wait_for(served.front.wait_idle(), 20)
        model = served.model("embedder", "float32")
        assert await asyncio.to_thread(model.scheduler.wait_until_idle, 20)
        assert model.scheduler.load().num_running == model.scheduler.load().num_queued == 0
        unload = management_pb2.UnloadModelRequest(model="embedder")
        unloaded = await served.management().UnloadModel(unload, timeout=20)  # waits for leases
        assert unloaded.models == ["embedder:float32"]


async def test_a_caller_that_sends_nothing_more_runs_out_of_time(start, store):
    options = common_pb2.RequestOptions(timeout_ms=1000)
    first = embedding_pb2.EmbedStreamSetup(model="embedder", options=options)
    async with start(store=store) as served:
        call = stub_of(served).EmbedStream()
        await call.write(embedding_pb2.EmbedStreamRequest(setup=first, texts=["a"]))
        assert (await call.read()).embeddings.num_vectors == 1
        refused = await refusal(call.read())
    assert refused.code() is grpc.StatusCode.DEADLINE_EXCEEDED
