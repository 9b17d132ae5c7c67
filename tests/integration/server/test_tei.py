"""`tei.v1` on the wire, by messages of the dialect's own pool and by bytes made by hand."""

from __future__ import annotations

import shutil

import grpc
import numpy as np
import pytest
from tokenizers import Tokenizer as Engine

from leptond.server.tei.messages import message
from tests.fixtures.tiny_models.goldens import golden_rows
from tests.fixtures.tiny_store import tiny_store

pytestmark = pytest.mark.needs("import", "ctranslate2")

TEXT = golden_rows("embedder")[0]["text"]


async def ask(served, method, request, response, metadata=()):
    call = served.channel().unary_unary(
        f"/tei.v1.{method}",
        request_serializer=lambda one: one if isinstance(one, bytes) else one.SerializeToString(),
        response_deserializer=message(response).FromString,
    )
    return await call(request, timeout=30, metadata=metadata)


@pytest.mark.asyncio
async def test_bytes_made_by_hand_get_the_vector_of_their_text(start):
    text = TEXT.encode()
    by_hand = b"\x0a" + bytes([len(text)]) + text + b"\x18\x00"  # inputs 1, normalize 3: false
    async with start(store=tiny_store("embedder")) as served:
        answer = await ask(served, "Embed/Embed", by_hand, "EmbedResponse")
        unit = await ask(
            served, "Embed/Embed", message("EmbedRequest")(inputs=TEXT), "EmbedResponse"
        )
    raw = np.array(answer.embeddings)
    assert np.allclose(unit.embeddings, raw / np.linalg.norm(raw), atol=1e-5)
    assert answer.metadata.compute_chars == len(TEXT)
    assert answer.metadata.compute_tokens == len(golden_rows("embedder")[0]["token_ids"])
    assert answer.metadata.total_time_ns > 0


@pytest.mark.asyncio
async def test_trailing_metadata_say_what_an_answer_cost(start):
    async with start(store=tiny_store("embedder")) as served:
        call = served.channel().unary_unary(
            "/tei.v1.Embed/Embed",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=message("EmbedResponse").FromString,
        )(message("EmbedRequest")(inputs=TEXT), timeout=30)
        answer = await call
        trailers = dict(await call.trailing_metadata())
    assert trailers["x-compute-characters"] == str(answer.metadata.compute_chars)
    assert trailers["x-compute-tokens"] == str(answer.metadata.compute_tokens)
    assert trailers["x-total-time"].isdigit()


@pytest.mark.asyncio
async def test_a_stream_answers_in_order(start):
    texts = [row["text"] for row in golden_rows("embedder")[:3] if row["text"]]
    requests = [message("EmbedRequest")(inputs=text, truncate=True) for text in texts]
    async with start(store=tiny_store("embedder")) as served:
        call = served.channel().stream_stream(
            "/tei.v1.Embed/EmbedStream",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=message("EmbedResponse").FromString,
        )
        found = [answer async for answer in call(iter(requests), timeout=30)]
    assert [one.metadata.compute_chars for one in found] == [len(text) for text in texts]


@pytest.mark.asyncio
async def test_labels_come_best_first(start):
    async with start(store=tiny_store("bert-classifier")) as served:
        request = message("PredictRequest")(inputs=TEXT)
        answer = await ask(served, "Predict/Predict", request, "PredictResponse")
    scores = [one.score for one in answer.predictions]
    assert len(scores) > 1
    assert scores == sorted(scores, reverse=True)


@pytest.mark.asyncio
async def test_ranks_come_best_first_with_their_texts(start):
    texts = ["A man eats.", "The girl plays."]
    async with start(store=tiny_store("bert-cross-encoder")) as served:
        request = message("RerankRequest")(query=TEXT, texts=texts, return_text=True)
        answer = await ask(served, "Rerank/Rerank", request, "RerankResponse")
    assert [one.text for one in answer.ranks] == [texts[one.index] for one in answer.ranks]
    assert answer.ranks[0].score >= answer.ranks[1].score


@pytest.mark.asyncio
async def test_texts_that_come_one_by_one_are_ranked_as_those_of_one_message(start):
    texts = ["A man eats.", "The girl plays."]
    one_by_one = [message("RerankStreamRequest")(query=TEXT, text=text) for text in texts]
    async with start(store=tiny_store("bert-cross-encoder")) as served:
        whole = message("RerankRequest")(query=TEXT, texts=texts)
        expected = await ask(served, "Rerank/Rerank", whole, "RerankResponse")
        call = served.channel().stream_unary(
            "/tei.v1.Rerank/RerankStream",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=message("RerankResponse").FromString,
        )
        found = await call(iter(one_by_one), timeout=30)
    assert list(found.ranks) == list(expected.ranks)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "number"), [("embedder", 0), ("bert-classifier", 1), ("bert-cross-encoder", 2)]
)
async def test_info_says_what_the_model_is_for(start, name, number):
    async with start(store=tiny_store(name)) as served:
        info = await ask(served, "Info/Info", message("InfoRequest")(), "InfoResponse")
    assert (info.model_id, info.model_type) == (f"{name}:float32", number)
    assert info.model_dtype == "float32"


@pytest.mark.asyncio
async def test_tokens_are_decoded_to_their_text(start):
    request = message("DecodeRequest")(
        ids=golden_rows("embedder")[0]["token_ids"], skip_special_tokens=True
    )
    async with start(store=tiny_store("embedder")) as served:
        answer = await ask(served, "Tokenize/Decode", request, "DecodeResponse")
    assert answer.text.replace(" ", "").lower() == TEXT.replace(" ", "").lower()


@pytest.mark.asyncio
async def test_several_models_that_fit_are_named(start):
    store = tiny_store("bert-classifier", "distilbert-classifier")
    request = message("PredictRequest")(inputs=TEXT)
    async with start(store=store) as served:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(served, "Predict/Predict", request, "PredictResponse")
        named = (("x-leptond-model", "distilbert-classifier"),)
        assert (await ask(served, "Predict/Predict", request, "PredictResponse", named)).predictions
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "bert-classifier, distilbert-classifier" in refused.value.details()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("method", "fields", "metadata", "code"),
    [
        ("Embed/Embed", {}, (), grpc.StatusCode.INVALID_ARGUMENT),
        ("Embed/EmbedSparse", {"inputs": "a"}, (), grpc.StatusCode.UNIMPLEMENTED),
        ("Predict/Predict", {"inputs": "a"}, (), grpc.StatusCode.NOT_FOUND),
        (
            "Predict/Predict",
            {"inputs": "a"},
            (("x-leptond-model", "embedder"),),
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
    ],
)
async def test_a_refusal_has_that_servers_code(start, method, fields, metadata, code):
    request = message("EmbedRequest")(**fields)
    async with start(store=tiny_store("embedder")) as served:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(served, method, request, "EmbedResponse", metadata)
    assert refused.value.code() is code


@pytest.mark.asyncio
async def test_a_model_that_comes_later_is_seen(start, tmp_path):
    store = tmp_path / "models"
    store.mkdir()
    async with start({}, store=store) as served:
        asked = message("EmbedRequest")(inputs="the man")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(served, "Embed/Embed", asked, "EmbedResponse")
        assert "no model in the store" in caught.value.details()
        shutil.copytree(tiny_store("embedder"), store, dirs_exist_ok=True)
        answer = await ask(served, "Embed/Embed", asked, "EmbedResponse")
    assert len(answer.embeddings) > 10


@pytest.mark.parametrize("name", ["embedder", "xlm-roberta-classifier"])
@pytest.mark.asyncio
async def test_tokens_come_with_their_places_in_the_text(start, name):
    text = "the man é eats 你好 food"
    store = tiny_store(name)
    engine = Engine.from_file(str(store / name / "1" / "tokenizer.json"))
    engine.no_truncation()
    engine.no_padding()
    expected = engine.encode(text, add_special_tokens=True)
    async with start(store=store) as served:
        asked = message("EncodeRequest")(inputs=text, add_special_tokens=True)
        answer = await ask(served, "Tokenize/Tokenize", asked, "EncodeResponse")
        bare = message("EncodeRequest")(inputs=text)
        plain = await ask(served, "Tokenize/Tokenize", bare, "EncodeResponse")
    assert [token.id for token in answer.tokens] == expected.ids
    assert [int(token.special) for token in answer.tokens] == expected.special_tokens_mask
    encoded = text.encode()
    for token, (first, last) in zip(answer.tokens, expected.offsets, strict=True):
        if token.special:
            assert token.text == engine.id_to_token(token.id)
            assert not token.HasField("start")
            continue
        assert token.text == text[first:last]
        assert encoded[token.start : token.stop].decode() == token.text
    inner = [token for token in answer.tokens if not token.special]
    assert list(plain.tokens) == inner


@pytest.mark.asyncio
async def test_a_prompt_is_counted_in_front_of_the_text(start):
    async with start(store=tiny_store("embedder")) as served:
        asked = message("EncodeRequest")(inputs="man", prompt_name="query")
        answer = await ask(served, "Tokenize/Tokenize", asked, "EncodeResponse")
        bad = message("EncodeRequest")(inputs="man", prompt_name="none")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(served, "Tokenize/Tokenize", bad, "EncodeResponse")
    last = answer.tokens[-1]
    assert (last.text, last.start, last.stop) == ("man", 6, 9)
    assert "the model defines" in caught.value.details()
