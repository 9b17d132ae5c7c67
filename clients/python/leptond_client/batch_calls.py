"""Every call that takes many texts at once, as a value. Pure; see `leptond_client.calls`."""

from __future__ import annotations

from collections.abc import Iterable

from leptond.v1 import classification_pb2, embedding_pb2, scoring_pb2, translation_pb2
from leptond_client import batch_requests, options, requests, responses, values
from leptond_client.calls import StreamCall, UnaryCall, check_names

__all__ = ["classify", "embed", "rerank", "score", "translate", "translate_stream"]

_CLASSIFICATION = "leptond.v1.ClassificationService"
_EMBEDDING = "leptond.v1.EmbeddingService"
_TEXT = "leptond.v1.TextGenerationService"
_TRANSLATION = "leptond.v1.TranslationService"


def embed(
    model: str, texts: str | Iterable[requests.Prompt], given: options.EmbedOptions
) -> UnaryCall[values.Embeddings]:
    """Make vectors of texts."""
    check_names(given, options.EmbedOptions)
    request = batch_requests.embed(model, texts, given)
    decode = embedding_pb2.EmbedResponse.FromString
    return UnaryCall(f"/{_EMBEDDING}/Embed", request, decode, responses.embeddings, given)


def classify(
    model: str,
    inputs: str | Iterable[requests.Prompt | tuple[str, str]],
    given: options.ClassifyOptions,
) -> UnaryCall[values.Classifications]:
    """Label texts or pairs of texts."""
    check_names(given, options.ClassifyOptions)
    request = batch_requests.classify(model, inputs, given)
    decode = classification_pb2.ClassifyResponse.FromString
    return UnaryCall(
        f"/{_CLASSIFICATION}/Classify", request, decode, responses.classifications, given
    )


def rerank(
    model: str, query: str, documents: Iterable[str], given: options.RerankOptions
) -> UnaryCall[values.Ranking]:
    """Order documents by their relevance to a query."""
    check_names(given, options.RerankOptions)
    request = batch_requests.rerank(model, query, documents, given)
    decode = classification_pb2.RerankResponse.FromString
    return UnaryCall(f"/{_CLASSIFICATION}/Rerank", request, decode, responses.ranking, given)


def translate(
    model: str, texts: str | Iterable[str], given: options.TranslateOptions
) -> UnaryCall[values.Translations]:
    """Translate texts."""
    check_names(given, options.TranslateOptions)
    request = translation_pb2.TranslateRequest()
    batch_requests.translate(request, model, texts, given)
    decode = translation_pb2.TranslateResponse.FromString
    return UnaryCall(f"/{_TRANSLATION}/Translate", request, decode, responses.translations, given)


def translate_stream(
    model: str, texts: str | Iterable[str], given: options.TranslateOptions
) -> StreamCall[values.TranslationPiece, values.Translations]:
    """Translate texts, sentence by sentence."""
    check_names(given, options.TranslateOptions)
    request = translation_pb2.TranslateStreamRequest()
    batch_requests.translate(request, model, texts, given)
    decode = translation_pb2.TranslateStreamResponse.FromString
    path = f"/{_TRANSLATION}/TranslateStream"
    return StreamCall(path, request, decode, responses.TranslationFold, given)


def score(
    model: str, inputs: str | Iterable[str | values.ScoreInput], given: options.ScoreOptions
) -> UnaryCall[values.Scores]:
    """Ask how likely texts are."""
    check_names(given, options.ScoreOptions)
    request = batch_requests.score(model, inputs, given)
    return UnaryCall(
        f"/{_TEXT}/Score", request, scoring_pb2.ScoreResponse.FromString, responses.scores, given
    )
