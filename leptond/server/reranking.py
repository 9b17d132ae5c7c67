"""`Rerank`: documents by their relevance to a query.

A cross-encoder reads each document together with the query; an embedder compares the embeddings of
both. On the event loop; tokenising runs on a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from leptond.checkpoint import EncoderDefaults
from leptond.errors import InvalidRequest, LeptondError, UnsupportedCapability
from leptond.models import ServedModel
from leptond.scheduler import BatchItem
from leptond.server.batching import BatchCalls, Tensors, gather_tensors, stacked
from leptond.server.calls import Call
from leptond.server.classification import classify_rows
from leptond.server.convert import classifications, requests
from leptond.server.convert.embeddings import normalized
from leptond.server.encoding import (
    Cut,
    EncodedTexts,
    check_count,
    encode_texts,
    encoder_defaults,
    top,
)
from leptond.streaming import BlockingPool
from leptond.telemetry import RERANK
from leptond.types import Task
from leptond.v1 import classification_pb2

__all__ = ["RerankingMethods", "choose_method", "prepare_documents", "relevance"]

Method: TypeAlias = classification_pb2.RerankMethod.ValueType
_CROSS = classification_pb2.RERANK_METHOD_CROSS_ENCODER
_SIMILARITY = classification_pb2.RERANK_METHOD_EMBEDDING_SIMILARITY
_NAMES = {_CROSS: "RERANK_METHOD_CROSS_ENCODER", _SIMILARITY: "RERANK_METHOD_EMBEDDING_SIMILARITY"}
Scores = npt.NDArray[np.float64]
_QUERY_PROMPTS = ("query",)
_DOCUMENT_PROMPTS = ("document", "passage")


class RerankingMethods:
    """Rerank, by its name in snake case."""

    def __init__(self, batches: BatchCalls) -> None:
        self._batches = batches

    async def rerank(
        self, request: classification_pb2.RerankRequest, call: Call
    ) -> classification_pb2.RerankResponse:
        """The documents, best first; one that is wrong fails the call, by its index."""
        encoded = EncodedTexts((), (), ())
        documents = request.documents

        async def prepare(model: ServedModel) -> Sequence[BatchItem]:
            nonlocal encoded
            method = choose_method(model, request.method)
            requests.check_determinism(request.options, model.name, model.capabilities)
            check_count(len(documents), "documents")
            top(request, "top_n", 1)
            truncation = request.truncation if request.HasField("truncation") else None
            encoded = await prepare_documents(
                model,
                method,
                request.query,
                list(documents),
                self._batches.pool,
                cut=Cut.of(model, truncation),
            )
            return encoded.items

        async with self._batches.admitted(request, call, RERANK, prepare) as inference:
            try:
                found = await gather_tensors(inference, len(encoded.items))
            except LeptondError as error:
                raise _of_document(error, len(encoded.items) - len(documents)) from error
            model = inference.model
            method = choose_method(model, request.method)
            scores = relevance(model, method, found, is_raw=request.raw_scores)
            response = classification_pb2.RerankResponse(method=method, info=inference.info(call))
            num_truncated = encoded.num_truncated[-len(documents) :]
            for index in classifications.best_first(scores, top(request, "top_n", len(documents))):
                response.results.add(
                    index=index,
                    score=scores[index],
                    document=documents[index] if request.return_documents else "",
                    truncated_tokens=num_truncated[index],
                )
            return response


def choose_method(model: ServedModel, wanted: Method) -> Method:
    """How the model compares: as asked for, or the best that it can.

    Raises:
        UnsupportedCapability: it cannot, or not that way; the message says how it could.
    """
    can: list[Method] = []
    if Task.CLASSIFY in model.capabilities.tasks and encoder_defaults(model).is_cross_encoder:
        can.append(_CROSS)
    if Task.EMBED in model.capabilities.tasks:
        can.append(_SIMILARITY)
    if not can:
        msg = f"model {model.name} ranks nothing: it is neither a cross-encoder nor an embedder"
        raise UnsupportedCapability(msg, field="model")
    if wanted and wanted not in can:
        known = ", ".join(_NAMES[one] for one in can)
        raise UnsupportedCapability(f"method: model {model.name} has {known}", field="method")
    return wanted or can[0]


async def prepare_documents(
    model: ServedModel,
    method: Method,
    query: str,
    documents: Sequence[str],
    pool: BlockingPool,
    *,
    cut: Cut,
) -> EncodedTexts:
    """Make the rows: a pair for each document, or the query and then each document.

    Raises:
        InvalidRequest: the query is empty, or leaves no room for a document.
        RequestTooLarge: an input is too long and must not be cut.
    """
    if not query:
        raise InvalidRequest("query is empty", field="query")
    if method == _CROSS:
        pairs = [(query, document) for document in documents]
        only_second = replace(cut, keeps_first=True)
        name = "documents[{}]".format
        return await classify_rows(model, pairs, pool, cut=only_second, field=name)
    defaults = encoder_defaults(model)
    options = {"task": Task.EMBED.value}
    first = await encode_texts(
        model,
        [query],
        pool,
        cut=replace(cut, side=None),
        options=options,
        prompt=_prompt(defaults, _QUERY_PROMPTS),
        field=lambda _: "query",
    )
    others = await encode_texts(
        model,
        documents,
        pool,
        cut=cut,
        options=options,
        prompt=_prompt(defaults, _DOCUMENT_PROMPTS),
        field="documents[{}]".format,
    )
    return EncodedTexts(
        first.items + others.items,
        first.num_tokens + others.num_tokens,
        first.num_truncated + others.num_truncated,
    )


def relevance(
    model: ServedModel, method: Method, found: Sequence[Tensors], *, is_raw: bool
) -> Scores:
    """Scores of the documents, float64 `[num_documents]`; from 0 to 1 unless `is_raw`.

    Of a cross-encoder raw is its logit; of an embedder the cosine, which else is moved from -1..1
    to 0..1.
    """
    if method == _CROSS:
        logits = stacked(found, "logits")
        is_single = logits.shape[1] == 1
        activation = "identity" if is_raw else "sigmoid" if is_single else "softmax"
        # The last label of several is the one that fits, as in models of "irrelevant, relevant".
        fits: Scores = classifications.scores_of(logits, activation)[:, -1]
        return fits
    vectors = normalized(stacked(found, "embedding"))
    cosines: Scores = (vectors[1:] @ vectors[0]).astype(np.float64)
    return cosines if is_raw else (1 + cosines) / 2


def _of_document(error: LeptondError, num_before: int) -> LeptondError:
    """The error with the index of the document, in front of which the query may stand."""
    if "index" not in error.details:
        return error
    place = int(error.details["index"]) - num_before
    details = {**error.details, "index": str(place)} if place >= 0 else {}
    return type(error)(error.message, field=error.field, details=details)


def _prompt(defaults: EncoderDefaults, names: Sequence[str]) -> str:
    """The model's own prompt for this side, else the one that it puts before every text."""
    for name in (*names, defaults.default_prompt):
        if name is not None and name in defaults.prompts:
            return defaults.prompts[name]
    return ""
