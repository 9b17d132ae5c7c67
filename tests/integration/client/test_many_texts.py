"""Both clients' methods about many texts, against a scripted server."""

from __future__ import annotations

import asyncio
import threading

import grpc
import pytest

from leptond.v1 import classification_pb2, embedding_pb2, scoring_pb2, translation_pb2
from leptond_client import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    InvalidRequest,
    RetryPolicy,
    Unavailable,
)
from tests.integration.client.conftest import QUICK
from tests.integration.client.scripted import (
    PATIENCE_S,
    commit,
    embeds_in_bulk,
    info,
    refuse,
    vectors,
)

TEXTS = ["x" * length for length in range(1, 301)]


def embeds(request, context):
    commit(context)
    return embedding_pb2.EmbedResponse(embeddings=vectors(request.texts), info=info(0))


def classifies(request, context):
    response = classification_pb2.ClassifyResponse(info=info(0))
    for given in request.inputs:
        response.results.add().labels.add(label=given.text, score=1.0)
    return response


def reranks(request, context):
    response = classification_pb2.RerankResponse(info=info(0))
    for index in reversed(range(len(request.documents))):
        response.results.add(index=index, score=float(index))
    return response


def translates(request, context):
    response = translation_pb2.TranslateResponse(source_language="de", info=info(0))
    for given in request.inputs:
        response.translations.add(text=given.text.upper())
    return response


def translates_in_pieces(request, context):
    for index, given in enumerate(request.inputs):
        yield translation_pb2.TranslateStreamResponse(
            input_index=index, text=given.text.upper(), is_last=True
        )
    yield translation_pb2.TranslateStreamResponse(info=info(0))


def scores(request, context):
    response = scoring_pb2.ScoreResponse(info=info(0))
    for given in request.inputs:
        response.results.add(logprob=-float(len(given.text)), num_tokens=1)
    return response


@pytest.fixture
def able(daemon):
    daemon.behaviours |= {
        "Embed": embeds,
        "EmbedStream": embeds_in_bulk("x" * 70, "x" * 300),
        "Classify": classifies,
        "Rerank": reranks,
        "Translate": translates,
        "TranslateStream": translates_in_pieces,
        "Score": scores,
    }
    return daemon


def seen(batches):
    """Return the first number of every vector, and the failed indices."""
    lengths = [vector[0] for batch in batches for vector in batch.embeddings]
    return lengths, sorted(index for batch in batches for index in batch.errors)


def test_every_method_brings_its_answer(able, client):
    assert [list(row) for row in client.embed("toy", ["a", "bc"])] == [[1.0, 1.0], [2.0, 1.0]]
    assert client.classify("toy", "good").results[0].best.label == "good"
    assert [one.index for one in client.rerank("toy", "q", ["a", "b"]).results] == [1, 0]
    assert client.translate("toy", ["a", "b"]).results[1].text == "B"
    stream = client.translate_stream("toy", ["a", "b"])
    assert [piece.text for piece in stream] == ["A", "B"]
    assert [one.text for one in stream.result.results] == ["A", "B"]
    assert client.score("toy", ["abc"]).results[0].logprob == -3.0


async def asked(address):
    async with AsyncClient(address, retry=QUICK) as client:
        stream = client.translate_stream("toy", ["a"])
        return (
            list((await client.embed("toy", "abc"))[0]),
            (await client.classify("toy", "good")).results[0].best.label,
            (await client.rerank("toy", "q", ["a", "b"])).results[0].index,
            (await client.translate("toy", "a")).results[0].text,
            [piece.text async for piece in stream],
            (await client.score("toy", "ab")).results[0].logprob,
        )


def test_asyncio_brings_the_same_answers(able):
    assert asyncio.run(asked(able.address)) == ([3.0, 1.0], "good", 1, "A", ["A"], -2.0)


def test_a_bulk_comes_in_order_with_its_errors(able, client):
    stream = client.embed_stream("toy", iter(TEXTS), batch_size=16)
    lengths, failed = seen(list(stream))
    assert lengths == [float(len(text)) for text in TEXTS]
    assert failed == [69, 299]
    assert (stream.result.num_texts, stream.result.num_errors) == (300, 2)


async def in_bulk(address):
    async with AsyncClient(address, retry=QUICK) as client:
        stream = client.embed_stream("toy", iter(TEXTS), batch_size=16)
        batches = [batch async for batch in stream]
        return seen(batches), stream.result


def test_asyncio_brings_the_same_bulk(able):
    (lengths, failed), result = asyncio.run(in_bulk(able.address))
    assert lengths == [float(len(text)) for text in TEXTS]
    assert failed == [69, 299]
    assert result.num_texts == 300


def refused_once(behave):
    left = [1]

    def refuse_first(request, context):
        if left:
            left.pop()
            if not hasattr(request, "DESCRIPTOR"):
                next(request)
            refuse(context, grpc.StatusCode.UNAVAILABLE, retry_after_s=0.01)
        return (yield from behave(request, context))

    return refuse_first


def test_a_bulk_that_was_not_admitted_is_repeated_from_its_first_text(able, client):
    able.behaviours["EmbedStream"] = refused_once(embeds_in_bulk())
    lengths, _ = seen(list(client.embed_stream("toy", iter(TEXTS), batch_size=16)))
    assert lengths == [float(len(text)) for text in TEXTS]
    assert len(able.calls) == 2


def test_asyncio_repeats_it_too(able):
    able.behaviours["EmbedStream"] = refused_once(embeds_in_bulk())
    (lengths, _), _ = asyncio.run(in_bulk(able.address))
    assert lengths == [float(len(text)) for text in TEXTS]


def test_a_bulk_that_was_admitted_is_not_repeated(able, client):
    def behave(requests, context):
        commit(context)
        first = next(requests)
        yield embedding_pb2.EmbedStreamResponse(embeddings=vectors(first.texts))
        refuse(context, grpc.StatusCode.UNAVAILABLE, retry_after_s=0.01)

    able.behaviours["EmbedStream"] = behave
    with pytest.raises(Unavailable) as caught:
        list(client.embed_stream("toy", TEXTS, batch_size=16))
    assert caught.value.was_admitted
    assert len(able.calls) == 1


def test_calls_that_were_not_admitted_are_repeated(able, client):
    left = [1]

    def behave(request, context):
        if left:
            left.pop()
            refuse(context, grpc.StatusCode.UNAVAILABLE, retry_after_s=0.01)
        return embeds(request, context)

    able.behaviours["Embed"] = behave
    assert len(client.embed("toy", ["a"])) == 1
    assert len(able.calls) == 2


def never_answers(gone):
    def behave(requests, context):
        if not context.add_callback(gone.set):
            gone.set()
        commit(context)
        yield embedding_pb2.EmbedStreamResponse(embeddings=vectors(next(requests).texts))
        gone.wait(PATIENCE_S)

    return behave


def test_leaving_a_bulk_cancels_it_and_reads_no_further(able, client):
    gone = threading.Event()
    able.behaviours["EmbedStream"] = never_answers(gone)
    texts = iter(TEXTS)
    for batch in client.embed_stream("toy", texts, batch_size=4, max_batches_in_flight=2):
        assert len(batch.embeddings) == 4
        break
    assert gone.wait(PATIENCE_S)
    assert next(texts) == "x" * 14  # three batches, and one text further


async def left_early(address):
    async with AsyncClient(address) as client:
        async for _ in client.embed_stream("toy", TEXTS, batch_size=4):
            break


def test_leaving_it_in_asyncio_cancels_it(able):
    gone = threading.Event()
    able.behaviours["EmbedStream"] = never_answers(gone)
    asyncio.run(left_early(able.address))
    assert gone.wait(PATIENCE_S)


def test_another_thread_can_cancel_a_bulk(able, client):
    gone = threading.Event()
    able.behaviours["EmbedStream"] = never_answers(gone)
    stream = client.embed_stream("toy", TEXTS)
    for _ in stream:
        stream.cancel()
        break
    with pytest.raises(Cancelled):
        list(stream)


def test_the_timeout_bounds_a_bulk(able, client):
    able.behaviours["EmbedStream"] = never_answers(threading.Event())
    with pytest.raises(DeadlineExceeded):
        list(client.embed_stream("toy", TEXTS, timeout=0.2))


def test_what_goes_wrong_with_the_texts_reaches_the_reader(able, client):
    def texts():
        yield "a"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(client.embed_stream("toy", texts()))


def test_a_refusal_is_mapped_as_ever(able):
    able.behaviours["Classify"] = lambda request, context: refuse(
        context, grpc.StatusCode.INVALID_ARGUMENT, "too long", field_path="inputs[3].text"
    )
    with (
        Client(able.address, retry=RetryPolicy(max_wait_s=0)) as client,
        pytest.raises(InvalidRequest) as caught,
    ):
        client.classify("toy", ["a"] * 4)
    assert caught.value.field == "inputs[3].text"
