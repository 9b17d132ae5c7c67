"""The methods of `tei.v1`: each is a request of `leptond.v1` in other words, and so is its answer.

On the event loop. What no model here can do (`EmbedSparse`, `EmbedAll`), and what is not built, is
UNIMPLEMENTED by name, as every method that is described and not registered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any

import grpc

from leptond.errors import BackendFault, InvalidRequest, RequestTooLarge, UnsupportedCapability
from leptond.server.batching import BatchCalls
from leptond.server.calls import Call
from leptond.server.classification import ClassificationMethods
from leptond.server.convert import requests
from leptond.server.convert.embeddings import prompt_of
from leptond.server.embedding import EmbeddingMethods
from leptond.server.encoding import MAX_INPUTS, check_count, encoder_defaults
from leptond.server.leases import leased
from leptond.server.reranking import RerankingMethods
from leptond.server.services import Behaviour, Service
from leptond.server.status import STATUS_OF
from leptond.server.tei.choice import MODEL_KEY, chosen_model
from leptond.server.tei.messages import PACKAGE, POOL, message
from leptond.text import EncoderTokenizer
from leptond.types import ModelDescription, Task
from leptond.v1 import classification_pb2, common_pb2, embedding_pb2

__all__ = ["tei_services"]

_CODES = {
    **STATUS_OF,
    UnsupportedCapability: grpc.StatusCode.FAILED_PRECONDITION,
    BackendFault: grpc.StatusCode.FAILED_PRECONDITION,
}
"""That server says so of a model of another kind and of an engine that failed."""

_EMBEDDER = frozenset({Task.EMBED})
_CLASSIFIER = frozenset({Task.CLASSIFY})
_RERANKER = _CLASSIFIER | {Task.RERANK}
_TYPES = {  # the first that a model answers, in that server's numbers
    _EMBEDDER: 0,
    _RERANKER: 2,
    _CLASSIFIER: 1,
}
_SIDES = {0: common_pb2.TRUNCATION_SIDE_RIGHT, 1: common_pb2.TRUNCATION_SIDE_LEFT}
_NS_PER_MS = 1_000_000
_MAX_TEXT_CHARS = 1 << 20
_MAX_GATHERED_BYTES = 64 << 20  # as much as one message may have
_MAX_DECODED_TOKENS = 1 << 18  # some tenths of a second on a thread


def tei_services(batches: BatchCalls) -> list[Service]:
    """Every service of the dialect that this daemon answers."""
    methods = _Methods(batches)
    table: Mapping[str, Mapping[str, Behaviour]] = {
        "Embed": {"Embed": methods.embed, "EmbedStream": _each(methods.embed)},
        "Predict": {
            "Predict": methods.predict,
            "PredictPair": methods.predict_pair,
            "PredictStream": _each(methods.predict),
            "PredictPairStream": _each(methods.predict_pair),
        },
        "Rerank": {"Rerank": methods.rerank, "RerankStream": methods.rerank_stream},
        "Info": {"Info": methods.info},
        "Tokenize": {
            "Tokenize": methods.tokenize,
            "TokenizeStream": _each(methods.tokenize),
            "Decode": methods.decode,
            "DecodeStream": _each(methods.decode),
        },
    }
    return [
        Service(f"{PACKAGE}.{name}", behaviours, pool=POOL, codes=_CODES)
        for name, behaviours in table.items()
    ]


def _each(answer: Callable[[Any, Call], Awaitable[Any]]) -> Behaviour:
    """The streaming form of a method: one request after the other, so nothing heaps up."""

    async def answer_each(incoming: AsyncIterator[Any], call: Call) -> None:
        async for request in incoming:
            await call.write(await answer(request, call))

    return answer_each


class _Methods:
    """The methods, by their names in snake case."""

    def __init__(self, batches: BatchCalls) -> None:
        self._batches = batches
        self._embedding = EmbeddingMethods(batches)
        self._classification = ClassificationMethods(batches)
        self._reranking = RerankingMethods(batches)

    async def embed(self, wire: Any, call: Call) -> Any:
        """The vector of one text."""
        _check_text(wire.inputs, "inputs")
        options = embedding_pb2.EmbedOptions(
            normalize=wire.normalize if wire.HasField("normalize") else True,
            truncation=_truncation(wire),
            prompt_name=wire.prompt_name,
        )
        if wire.HasField("dimensions"):
            options.dimensions = wire.dimensions
        model = await self._model(call, _EMBEDDER)
        request = embedding_pb2.EmbedRequest(model=model, texts=[wire.inputs], embedding=options)
        answer = await self._embedding.embed(request, call)
        vector = memoryview(answer.embeddings.data).cast("f")
        return message("EmbedResponse")(
            embeddings=vector, metadata=_metadata(call, answer.info, len(wire.inputs))
        )

    async def predict(self, wire: Any, call: Call) -> Any:
        """Every label of one text."""
        return await self._classify(wire, [wire.inputs], call)

    async def predict_pair(self, wire: Any, call: Call) -> Any:
        """Every label of one text or one pair."""
        if len(wire.inputs) not in (1, 2):
            msg = f"inputs has {len(wire.inputs)} texts; one or two are taken"
            raise InvalidRequest(msg, field="inputs")
        return await self._classify(wire, wire.inputs, call)

    async def rerank(self, wire: Any, call: Call) -> Any:
        """Texts by how well a cross-encoder finds that they answer the query."""
        request = classification_pb2.RerankRequest(
            model=await self._model(call, _RERANKER),
            query=wire.query,
            documents=wire.texts,
            method=classification_pb2.RERANK_METHOD_CROSS_ENCODER,
            raw_scores=wire.raw_scores,
            truncation=_truncation(wire),
        )
        answer = await self._reranking.rerank(request, call)
        num_chars = len(wire.query) * len(wire.texts) + sum(map(len, wire.texts))
        response = message("RerankResponse")(metadata=_metadata(call, answer.info, num_chars))
        for one in answer.results:
            rank = response.ranks.add(index=one.index, score=one.score)
            if wire.return_text:
                rank.text = wire.texts[one.index]
        return response

    async def rerank_stream(self, texts: AsyncIterator[Any], call: Call) -> Any:
        """As `rerank`, of texts that come one by one; the options of the first hold for all.

        Raises:
            InvalidRequest: texts of several queries.
            RequestTooLarge: more texts than one message may have.
        """
        whole: Any = None
        num_bytes = 0
        async for one in texts:
            num_bytes += one.ByteSize()
            if num_bytes > _MAX_GATHERED_BYTES:
                msg = f"texts are more than {_MAX_GATHERED_BYTES} bytes together"
                raise RequestTooLarge(msg, field="texts")
            if whole is None:
                whole = message("RerankRequest")(
                    query=one.query,
                    truncate=one.truncate,
                    raw_scores=one.raw_scores,
                    return_text=one.return_text,
                    truncation_direction=one.truncation_direction,
                )
            if one.query != whole.query:
                raise InvalidRequest("query is another one than the stream's first", field="query")
            whole.texts.append(one.text)
            check_count(len(whole.texts), "texts")
        if whole is None:
            raise InvalidRequest("texts is empty", field="texts")
        return await self.rerank(whole, call)

    async def info(self, wire: Any, call: Call) -> Any:
        """Facts of the model that is named, or of the only encoder.

        Raises:
            UnsupportedCapability: it is no encoder.
        """
        del wire
        name = await self._model(call, _EMBEDDER, _CLASSIFIER)
        one = await self._batches.pool.run(self._batches.models.describe, name)
        await call.commit()
        return message("InfoResponse")(
            version=version("leptond"),
            model_id=one.name,
            model_sha=str(one.version),
            model_dtype=one.precision,
            model_type=_model_type(one),
            max_input_length=one.max_context_tokens,
            max_client_batch_size=MAX_INPUTS,
        )

    async def tokenize(self, wire: Any, call: Call) -> Any:
        """The tokens of a text with its prompt in front, by the tokenizer of an encoder.

        Raises:
            RequestTooLarge: the text has more than 2**20 characters.
        """
        _check_text(wire.inputs, "inputs")
        if len(wire.inputs) > _MAX_TEXT_CHARS:
            msg = f"inputs has {len(wire.inputs)} characters; at most {_MAX_TEXT_CHARS} are taken"
            raise RequestTooLarge(msg, field="inputs")
        name = await self._model(call, _EMBEDDER, _CLASSIFIER)
        async with call.in_time(), leased(self._batches.models, name, 0, call) as model:
            options = embedding_pb2.EmbedOptions(prompt_name=wire.prompt_name)
            text = prompt_of(options, encoder_defaults(model)) + wire.inputs
            response = await self._batches.pool.run(
                _tokenize, model.encoder, text, adds=wire.add_special_tokens
            )
            await call.commit()
            return response

    async def decode(self, wire: Any, call: Call) -> Any:
        """The text of token ids, by the tokenizer of an encoder."""
        name = await self._model(call, _EMBEDDER, _CLASSIFIER)
        async with call.in_time(), leased(self._batches.models, name, 0, call) as model:
            vocab_size = model.capabilities.vocab_size
            ids = requests.prompt_ids(wire.ids, vocab_size, _MAX_DECODED_TOKENS, "ids")
            text = await self._batches.pool.run(
                model.encoder.decode, ids, skip_special=wire.skip_special_tokens
            )
            await call.commit()
            return message("DecodeResponse")(text=text)

    async def _classify(self, wire: Any, texts: Any, call: Call) -> Any:
        for text in texts:
            _check_text(text, "inputs")
        request = classification_pb2.ClassifyRequest(
            model=await self._model(call, _CLASSIFIER),
            raw_scores=wire.raw_scores,
            truncation=_truncation(wire),
        )
        one = request.inputs.add(text=texts[0])
        if len(texts) > 1:
            one.text_pair = texts[1]
        answer = await self._classification.classify(request, call)
        response = message("PredictResponse")(
            metadata=_metadata(call, answer.info, sum(map(len, texts)))
        )
        for label in answer.results[0].labels:
            response.predictions.add(label=label.label, score=label.score)
        return response

    async def _model(self, call: Call, *ways: frozenset[Task]) -> str:
        return await chosen_model(self._batches.models, self._batches.pool, call, *ways)


def _tokenize(encoder: EncoderTokenizer, text: str, *, adds: bool) -> Any:
    """The whole answer, off the loop: a text may have very many tokens."""
    response = message("EncodeResponse")()
    for span in encoder.spans(text, add_special=adds):
        token = response.tokens.add(id=span.token_id, text=span.text, special=span.is_special)
        if not span.is_special:
            token.start, token.stop = span.start, span.end
    return response


def _model_type(one: ModelDescription) -> int:
    for tasks, number in _TYPES.items():
        if one.tasks.issuperset(tasks):
            return number
    msg = f"model {one.name} neither embeds nor classifies"
    raise UnsupportedCapability(msg, field=MODEL_KEY)


def _check_text(text: str, field: str) -> None:
    if not text:
        raise InvalidRequest(f"{field} is empty", field=field)


def _truncation(wire: Any) -> common_pb2.Truncation | None:
    if wire.truncation_direction not in _SIDES:
        msg = f"truncation_direction is {wire.truncation_direction}; 0 and 1 are known"
        raise InvalidRequest(msg, field="truncation_direction")
    side = _SIDES[wire.truncation_direction]
    return common_pb2.Truncation(side=side) if wire.truncate else None


def _metadata(call: Call, info: common_pb2.ResponseInfo, num_chars: int) -> Any:
    """What the answer cost; trailing metadata say it too, under that server's names of headers."""
    timing = info.timing
    inference_ms = timing.prefill_ms + timing.decode_ms
    numbers = {
        "x-compute-characters": num_chars,
        "x-compute-tokens": info.usage.prompt_tokens,
        "x-total-time": timing.total_ms,
        "x-tokenization-time": timing.tokenize_ms,
        "x-queue-time": timing.queue_ms,
        "x-inference-time": inference_ms,
    }
    call.trailers = tuple((key, str(int(value))) for key, value in numbers.items())
    return message("Metadata")(
        compute_chars=num_chars,
        compute_tokens=info.usage.prompt_tokens,
        total_time_ns=round(timing.total_ms * _NS_PER_MS),
        tokenization_time_ns=round(timing.tokenize_ms * _NS_PER_MS),
        queue_time_ns=round(timing.queue_ms * _NS_PER_MS),
        inference_time_ns=round(inference_ms * _NS_PER_MS),
    )
