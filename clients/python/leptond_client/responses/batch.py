"""Vectors, labels, orders, scores and translations."""

from __future__ import annotations

from typing import Any

from leptond.v1 import (
    classification_pb2,
    common_pb2,
    embedding_pb2,
    scoring_pb2,
    translation_pb2,
)
from leptond_client import values
from leptond_client.responses.text import finish_reason, logprobs
from leptond_client.responses.wire import cut_short, enum_name, enum_value, same_fields

__all__ = [
    "TranslationFold",
    "call_info",
    "classifications",
    "embedding_batch",
    "embeddings",
    "ranking",
    "scores",
    "translations",
]


def call_info(wire: common_pb2.ResponseInfo) -> values.CallInfo:
    """What is known of the call."""
    return values.CallInfo(
        usage=same_fields(values.Usage, wire.usage),
        timing=same_fields(values.Timing, wire.timing),
        model=wire.model,
        model_version=wire.model_version,
        request_id=wire.request_id,
        server_request_id=wire.server_request_id,
    )


def embeddings(response: embedding_pb2.EmbedResponse) -> values.Embeddings:
    """The vectors of the texts of one call."""
    return embedding_batch(response.embeddings, call_info(response.info))


def embedding_batch(
    wire: embedding_pb2.EmbeddingBatch, info: values.CallInfo | None = None
) -> values.Embeddings:
    """Vectors; an element type that is not said is float32."""
    kind = enum_value(
        values.ElementType, embedding_pb2.ElementType, "ELEMENT_TYPE_", wire.element_type
    )
    return values.Embeddings(
        data=wire.data,
        element_type=values.ElementType.FLOAT32 if not wire.element_type else kind,
        dimensions=wire.dimensions,
        num_vectors=wire.num_vectors,
        scales=tuple(wire.scales),
        num_tokens=tuple(wire.num_tokens),
        truncated_tokens=tuple(wire.truncated_tokens),
        pooling=_said(embedding_pb2.Pooling, "POOLING_", wire.pooling),
        normalized=wire.normalized,
        info=info or values.CallInfo(),
    )


def classifications(response: classification_pb2.ClassifyResponse) -> values.Classifications:
    """The labels of every text."""
    return values.Classifications(
        results=tuple(
            values.Classification(
                tuple(values.LabelScore(label.label, label.score) for label in result.labels),
                result.truncated_tokens,
            )
            for result in response.results
        ),
        method=_said(
            classification_pb2.ClassificationMethod, "CLASSIFICATION_METHOD_", response.method
        ),
        multi_label=response.multi_label,
        info=call_info(response.info),
    )


def ranking(response: classification_pb2.RerankResponse) -> values.Ranking:
    """The documents, best first."""
    return values.Ranking(
        results=tuple(same_fields(values.RankedDocument, wire) for wire in response.results),
        method=_said(classification_pb2.RerankMethod, "RERANK_METHOD_", response.method),
        info=call_info(response.info),
    )


def scores(response: scoring_pb2.ScoreResponse) -> values.Scores:
    """How likely every text is."""
    return values.Scores(
        results=tuple(
            values.Score(result.logprob, result.num_tokens, logprobs(result.tokens))
            for result in response.results
        ),
        info=call_info(response.info),
    )


def translations(response: translation_pb2.TranslateResponse) -> values.Translations:
    """The translation of every text."""
    return values.Translations(
        results=tuple(
            values.Translation(wire.text, tuple(map(_sentence, wire.sentences)))
            for wire in response.translations
        ),
        source_language=response.source_language,
        target_language=response.target_language,
        info=call_info(response.info),
    )


class TranslationFold:
    """Pieces of translations, and the whole ones."""

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {}
        self._sentences: dict[int, list[values.TranslatedSentence]] = {}
        self._info: common_pb2.ResponseInfo | None = None

    def add(
        self, message: translation_pb2.TranslateStreamResponse
    ) -> values.TranslationPiece | None:
        """The piece in one message; the final one holds none."""
        if message.HasField("info"):
            self._info = message.info
        sentence = _sentence(message.sentence) if message.HasField("sentence") else None
        if sentence is None and not (message.text or message.is_last):
            return None
        index = message.input_index
        self._texts.setdefault(index, []).append(message.text)
        if sentence is not None:
            self._sentences.setdefault(index, []).append(sentence)
        return values.TranslationPiece(
            index, message.sentence_index, message.text, sentence, message.is_last
        )

    def final(self) -> values.Translations:
        """All translations."""
        if self._info is None:
            raise cut_short()
        results = tuple(
            values.Translation("".join(texts), tuple(self._sentences.get(index, ())))
            for index, texts in sorted(self._texts.items())
        )
        return values.Translations(results, "", "", call_info(self._info))


def _sentence(wire: translation_pb2.TranslatedSentence) -> values.TranslatedSentence:
    alternatives = tuple(
        values.TranslationAlternative(
            one.text, tuple(one.token_ids), one.score, finish_reason(one.finish_reason)
        )
        for one in wire.alternatives
    )
    return values.TranslatedSentence(wire.start_byte, wire.end_byte, alternatives)


def _said(kind: Any, prefix: str, number: int) -> str:
    """An enumeration's value in lower case; empty where it is not said."""
    return enum_name(kind, prefix, number) if number else ""
