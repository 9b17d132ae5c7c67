"""From keyword arguments to the messages of the methods that take many texts at once. Pure.

Of every list of texts a single text may stand in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from leptond.v1 import (
    classification_pb2,
    embedding_pb2,
    scoring_pb2,
    translation_pb2,
)
from leptond_client import options as known
from leptond_client.errors import InvalidRequest
from leptond_client.requests import Options, Prompt, fill, fill_chat, fill_common, set_field
from leptond_client.values import ScoreInput

__all__ = [
    "add_texts",
    "classify",
    "embed",
    "fill_embedding",
    "rerank",
    "score",
    "translate",
]

_VECTORS = tuple(known.VectorOptions.__annotations__)
_TRANSLATION = tuple(known.TranslationOptions.__annotations__)


def embed(
    model: str, texts: str | Iterable[Prompt], options: Options
) -> embedding_pb2.EmbedRequest:
    """A request for the vectors of texts."""
    request = embedding_pb2.EmbedRequest()
    fill_embedding(request, model, options)
    add_texts(request, _several(texts))
    return request


def fill_embedding(
    message: embedding_pb2.EmbedRequest | embedding_pb2.EmbedStreamSetup,
    model: str,
    options: Options,
) -> None:
    """Set everything but the texts."""
    fill_common(message, model, options)
    path = "embedding."
    plain = [name for name in _VECTORS if name not in ("element_type", "pooling")]
    fill(message.embedding, plain, options, path)
    _set_enum(message.embedding, "element_type", "ELEMENT_TYPE_", options, path)
    _set_enum(message.embedding, "pooling", "POOLING_", options, path)
    _fill_truncation(message.embedding, options, path)


def add_texts(
    message: embedding_pb2.EmbedRequest | embedding_pb2.EmbedStreamRequest,
    texts: Iterable[Prompt],
) -> None:
    """Set the texts, or the lists of token ids."""
    for index, text in enumerate(texts):
        if isinstance(text, str):
            # By its own index, which the field of a repeated text does not say.
            try:
                message.texts.append(text)
            except UnicodeEncodeError as error:
                field = f"texts[{index}]"
                msg = f"{field} is not text that UTF-8 can hold: {error.reason} at {error.start}"
                raise InvalidRequest(msg, field=field) from error
        else:
            set_field(message.token_ids.add(), "ids", text, f"token_ids[{index}].")


def classify(
    model: str, inputs: str | Iterable[Prompt | tuple[str, str]], options: Options
) -> classification_pb2.ClassifyRequest:
    """A request for the labels of texts, token ids or pairs of texts."""
    request = classification_pb2.ClassifyRequest()
    fill_common(request, model, options)
    for index, given in enumerate(_several(inputs)):
        path = f"inputs[{index}]."
        wire = request.inputs.add()
        if isinstance(given, str):
            set_field(wire, "text", given, path)
        elif isinstance(given, tuple) and all(isinstance(part, str) for part in given):
            if len(given) != 2:  # noqa: PLR2004  # a pair
                msg = f"inputs[{index}]: a pair has two texts, not {len(given)}"
                raise InvalidRequest(msg, field=f"inputs[{index}]")
            set_field(wire, "text", given[0], path)
            set_field(wire, "text_pair", given[1], path)
        else:
            set_field(wire.token_ids, "ids", given, f"{path}token_ids.")
    fill(
        request,
        ("labels", "hypothesis_template", "multi_label", "top_k", "raw_scores"),
        options,
    )
    _fill_truncation(request, options, "")
    return request


def rerank(
    model: str, query: str, documents: Iterable[str], options: Options
) -> classification_pb2.RerankRequest:
    """A request for the order of documents."""
    request = classification_pb2.RerankRequest()
    fill_common(request, model, options)
    set_field(request, "query", query, "")
    set_field(request, "documents", _several(documents), "")
    fill(request, ("top_n", "return_documents", "raw_scores"), options)
    _set_enum(request, "method", "RERANK_METHOD_", options, "")
    _fill_truncation(request, options, "")
    return request


def translate(
    request: translation_pb2.TranslateRequest | translation_pb2.TranslateStreamRequest,
    model: str,
    texts: str | Iterable[str],
    options: Options,
) -> None:
    """Fill a request for translations."""
    fill_common(request, model, options)
    texts = list(_several(texts))
    for index, (text, prefix) in enumerate(zip(texts, _prefixes(texts, options), strict=True)):
        wire = request.inputs.add()
        set_field(wire, "text", text, f"inputs[{index}].")
        set_field(wire, "target_prefix", prefix, f"inputs[{index}].")
    fill(request, ("source_language", "target_language"), options)
    path = "translation."
    plain = [name for name in _TRANSLATION if name != "sentence_splitting"]
    fill(request.translation, plain, options, path)
    _set_enum(request.translation, "sentence_splitting", "SENTENCE_SPLITTING_", options, path)


def score(
    model: str, inputs: str | Iterable[str | ScoreInput], options: Options
) -> scoring_pb2.ScoreRequest:
    """A request for how likely texts are."""
    request = scoring_pb2.ScoreRequest()
    fill_common(request, model, options)
    for index, given in enumerate(_several(inputs)):
        one = ScoreInput(given) if isinstance(given, str) else given
        _fill_score(request.inputs.add(), one, f"inputs[{index}].")
    fill(request, ("top_logprobs", "omit_token_logprobs"), options)
    return request


def _fill_score(wire: scoring_pb2.ScoreInput, given: ScoreInput, path: str) -> None:
    if given.messages and given.prompt is not None:
        field = f"{path}prompt"
        raise InvalidRequest(f"{field} and messages exclude each other", field=field)
    if given.messages:
        fill_chat(wire.chat, given.messages, {}, f"{path}chat.")
    elif isinstance(given.prompt, str):
        set_field(wire.prompt, "text", given.prompt, f"{path}prompt.")
    elif given.prompt is not None:
        set_field(wire.prompt.token_ids, "ids", given.prompt, f"{path}prompt.token_ids.")
    if isinstance(given.target, str):
        set_field(wire, "text", given.target, path)
    else:
        set_field(wire.token_ids, "ids", given.target, f"{path}token_ids.")


def _several(given: Any) -> Iterable[Any]:
    return [given] if isinstance(given, str) else given


def _prefixes(texts: Sequence[str], options: Options) -> Sequence[str]:
    given = options.get("target_prefix") or ""
    prefixes = [given] * len(texts) if isinstance(given, str) else list(given)
    if len(prefixes) != len(texts):
        msg = f"target_prefix has {len(prefixes)} entries for {len(texts)} texts"
        raise InvalidRequest(msg, field="target_prefix")
    return prefixes


def _fill_truncation(message: Any, options: Options, path: str) -> None:
    """Set `message.truncation` where the caller permits it."""
    side = options.get("truncate")
    if not side:
        if options.get("truncate_to_tokens") is not None:
            msg = "truncate_to_tokens needs truncate"
            raise InvalidRequest(msg, field=f"{path}truncation.max_tokens")
        return
    message.truncation.SetInParent()
    if side is not True:
        _set_enum(message.truncation, "side", "TRUNCATION_SIDE_", {"side": side}, path)
    names = {"max_tokens": options.get("truncate_to_tokens")}
    fill(message.truncation, names, names, f"{path}truncation.")


def _set_enum(message: Any, name: str, prefix: str, options: Mapping[str, Any], path: str) -> None:
    """Set a field to the value of its enumeration that the caller gave in lower case."""
    given = options.get(name)
    if given is None:
        return
    kind = message.DESCRIPTOR.fields_by_name[name].enum_type
    number = kind.values_by_name.get(f"{prefix}{given.upper()}")
    if number is None or not number.number:
        known_names = [value.name.removeprefix(prefix).lower() for value in kind.values[1:]]
        msg = f"{path}{name}: {given!r} is none of {', '.join(known_names)}"
        raise InvalidRequest(msg, field=f"{path}{name}")
    setattr(message, name, number.number)
