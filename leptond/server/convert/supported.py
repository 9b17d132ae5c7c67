"""Which fields of `leptond.v1` this daemon honours; every other one is refused by its name.

The API has room for more than is built. A field that is set and not listed here is UNIMPLEMENTED
with its path, so that nothing a caller asks for is silently dropped. Adding a field to the protos
therefore changes nothing until someone lists it.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from leptond.errors import UnsupportedCapability

__all__ = ["refuse_unsupported"]

_MODEL = frozenset({"model", "model_version"})
_GENERATE = _MODEL | {"options", "input", "sampling", "output"}
_TRANSLATE = _MODEL | {"options", "inputs", "source_language", "target_language", "translation"}

SUPPORTED: Mapping[str, frozenset[str]] = {
    "RequestOptions": frozenset(
        {"request_id", "priority", "cache_salt", "timeout_ms", "deterministic"}
    ),
    "SamplingParams": frozenset({
        "temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "min_tokens",
        "repetition_penalty", "frequency_penalty", "presence_penalty", "logit_bias", "stop",
        "stop_token_ids", "ignore_eos", "num_choices",
    }),
    "OutputOptions": frozenset({"logprobs", "prompt_token_ids", "skip_special_tokens"}),
    "StreamOptions": frozenset({"stream_interval_tokens", "stream_interval_ms"}),
    "GenerationInput": frozenset({"text", "token_ids", "parse_special", "add_special_tokens"}),
    "TokenIds": frozenset({"ids"}),
    "ChatInput": frozenset(
        {"messages", "add_generation_prompt", "continue_final_message"}
    ),
    "Message": frozenset({"role", "content"}),
    "ContentPart": frozenset({"text"}),
    "TokenizeInput": frozenset({"text", "chat"}),
    "GenerateRequest": _GENERATE,
    "GenerateStreamRequest": _GENERATE | {"stream"},
    "ChatRequest": _GENERATE,
    "ChatStreamRequest": _GENERATE | {"stream"},
    "TokenizeRequest": _MODEL
    | {"options", "inputs", "parse_special", "add_special_tokens", "details"},
    "DetokenizeRequest": _MODEL | {"options", "inputs", "skip_special_tokens"},
    "TranslateRequest": _TRANSLATE,
    "TranslateStreamRequest": _TRANSLATE,
    "TranslationInput": frozenset({"text", "target_prefix"}),
    "TranslationOptions": frozenset({
        "beam_size", "num_alternatives", "length_penalty", "max_tokens", "repetition_penalty",
        "no_repeat_ngram_size", "sentence_splitting",
    }),
    "ClassifyInput": frozenset({"text", "token_ids", "text_pair"}),
    "ClassifyRequest": _MODEL | {
        "options", "inputs", "labels", "hypothesis_template", "multi_label", "top_k",
        "raw_scores", "unit", "truncation",
    },
    "RerankRequest": _MODEL | {
        "options", "query", "documents", "top_n", "return_documents", "raw_scores", "truncation",
        "method",
    },
    "EmbedRequest": _MODEL | {"options", "texts", "token_ids", "embedding"},
    "EmbedStreamRequest": frozenset({"setup", "batch_id", "texts", "token_ids"}),
    "EmbedStreamSetup": _MODEL | {"options", "embedding"},
    "EmbedOptions": frozenset({
        "normalize", "truncation", "prompt_name", "prompt", "dimensions", "element_type",
        "pooling", "form",
    }),
    "Truncation": frozenset({"side", "max_tokens"}),
    "ScoreInput": frozenset({"prompt", "chat", "text", "token_ids"}),
    "ScoreRequest": _MODEL | {"options", "inputs", "top_logprobs", "omit_token_logprobs"},
    "ListModelsRequest": frozenset({"model"}),
    "LoadModelRequest": _MODEL,
    "UnloadModelRequest": _MODEL,
    "GetLoadRequest": frozenset({"model"}),
}  # fmt: skip
"""By bare message name: the fields that are honoured."""


def refuse_unsupported(message: Message, path: str = "") -> None:
    """Raise `UnsupportedCapability` naming the first set field that is not honoured.

    A field that is set to its proto3 default without presence cannot be told from an unset one and
    asks for nothing.
    """
    supported = SUPPORTED.get(message.DESCRIPTOR.name, frozenset())
    for field, value in message.ListFields():
        name = f"{path}{field.name}"
        if field.name not in supported:
            msg = f"{name} is not supported by this daemon yet"
            raise UnsupportedCapability(msg, field=name)
        inner = field.message_type
        if inner is None or inner.GetOptions().map_entry:
            continue
        if field.is_repeated:
            for index, item in enumerate(value):
                refuse_unsupported(item, f"{name}[{index}].")
        else:
            refuse_unsupported(value, f"{name}.")
