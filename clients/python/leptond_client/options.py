"""The keyword arguments of the client's methods, each said once for both clients.

Every one can be left out, or be None, which is the same: the daemon's and the model's own defaults
hold then. The names are those of the API, whose protos say the ranges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

__all__ = [
    "CallOptions",
    "ChatOptions",
    "ChatStreamOptions",
    "ClassifyOptions",
    "ConversationOptions",
    "DetokenizeOptions",
    "EmbedOptions",
    "EmbedStreamOptions",
    "GenerateOptions",
    "GenerateStreamOptions",
    "InferenceOptions",
    "OutputOptions",
    "PacingOptions",
    "RawPromptOptions",
    "RequestOptions",
    "RerankOptions",
    "SamplingOptions",
    "ScoreOptions",
    "TokenizeOptions",
    "TranslateOptions",
    "TranslationOptions",
    "TruncationOptions",
    "VectorOptions",
]


class CallOptions(TypedDict, total=False):
    """What every method takes.

    Attributes:
        timeout: seconds that the call may take in all, repetitions included; a stream to its last
            piece. Left out: the client's own `timeout`.
    """

    timeout: float | None


class RequestOptions(TypedDict, total=False):
    """How a call is treated.

    Attributes:
        request_id: the caller's label, logged and echoed; visible ASCII, at most 128 characters.
        priority: higher goes first; 0 is ordinary, negative is background work.
        cache_salt: cached prompt prefixes are shared only between calls with equal salts.
        deterministic: the answer must not depend on what else runs at the same time.
    """

    request_id: str | None
    priority: int | None
    cache_salt: str | None
    deterministic: bool | None


class InferenceOptions(CallOptions, RequestOptions, total=False):
    """What every method that asks a model takes.

    Attributes:
        model_version: the version of the model. Left out: the newest.
    """

    model_version: int | None


class SamplingOptions(TypedDict, total=False):
    """How tokens are chosen, and when to stop.

    Attributes:
        temperature: divides the logits; 0 always takes the likeliest token.
        top_p: keeps the likeliest tokens whose probabilities together reach this; 1 keeps all.
        top_k: keeps so many of the likeliest tokens; 0 keeps all.
        min_p: drops tokens less likely than this share of the likeliest one; 0 drops none.
        seed: fixes the random numbers. Left out: fresh ones.
        max_tokens: the most tokens to sample. Left out: the daemon's limit.
        min_tokens: nothing ends the text before so many tokens.
        repetition_penalty: above 1 makes tokens that occurred already less likely.
        frequency_penalty: subtracted from a token's logit per occurrence in the answer; -2 to 2.
        presence_penalty: subtracted from the logit of a token that occurred; -2 to 2.
        logit_bias: added to the logits of these token ids.
        stop: a text, or texts, that end the answer; not part of it.
        stop_token_ids: tokens that end the answer, besides the model's own.
        ignore_eos: the model's own end tokens do not end the answer.
    """

    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    seed: int | None
    max_tokens: int | None
    min_tokens: int | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logit_bias: Mapping[int, float] | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool | None


class OutputOptions(TypedDict, total=False):
    """What else an answer holds.

    Attributes:
        logprobs: log-probabilities of the sampled tokens, with so many alternatives; 0 to 20.
        prompt_token_ids: the prompt's tokens are returned.
        skip_special_tokens: control tokens are left out of the text; true by default.
    """

    logprobs: int | None
    prompt_token_ids: bool | None
    skip_special_tokens: bool | None


class PacingOptions(TypedDict, total=False):
    """How a stream is delivered. The first token always leaves at once.

    Attributes:
        stream_interval_tokens: tokens are gathered until there are so many.
        stream_interval_ms: tokens are gathered for so many milliseconds.
    """

    stream_interval_tokens: int | None
    stream_interval_ms: int | None


class RawPromptOptions(TypedDict, total=False):
    """How a raw text becomes tokens.

    Attributes:
        parse_special: spellings of control tokens become those tokens; true by default.
        add_special_tokens: the tokens that begin or end a text are added. Left out: as the model's
            tokenizer says.
    """

    parse_special: bool | None
    add_special_tokens: bool | None


class ConversationOptions(TypedDict, total=False):
    """How a conversation becomes a prompt.

    Attributes:
        add_generation_prompt: the opening of an answer follows the conversation; true by default.
        continue_final_message: the answer continues the last message, the assistant's.
    """

    add_generation_prompt: bool | None
    continue_final_message: bool | None


class GenerateOptions(
    InferenceOptions, SamplingOptions, OutputOptions, RawPromptOptions, total=False
):
    """What `generate` takes."""


class GenerateStreamOptions(GenerateOptions, PacingOptions, total=False):
    """What `generate_stream` takes."""


class ChatOptions(
    InferenceOptions, SamplingOptions, OutputOptions, ConversationOptions, total=False
):
    """What `chat` takes."""


class ChatStreamOptions(ChatOptions, PacingOptions, total=False):
    """What `chat_stream` takes."""


class TokenizeOptions(InferenceOptions, RawPromptOptions, ConversationOptions, total=False):
    """What `tokenize` takes: of `RawPromptOptions` for a text, or of `ConversationOptions`.

    Attributes:
        details: the exact bytes of each token are returned.
    """

    details: bool | None


class DetokenizeOptions(InferenceOptions, total=False):
    """What `detokenize` takes.

    Attributes:
        skip_special_tokens: control tokens are left out; true by default.
    """

    skip_special_tokens: bool | None


class TruncationOptions(TypedDict, total=False):
    """Permission to cut texts that are too long; without it they are refused.

    Attributes:
        truncate: which end is cut off; True takes the end of the text.
        truncate_to_tokens: with `truncate`, the most tokens to keep, special tokens included. Left
            out: as many as the model can take.
    """

    truncate: bool | Literal["left", "right"] | None
    truncate_to_tokens: int | None


class VectorOptions(TypedDict, total=False):
    """What kind of vectors, and how they are made.

    Attributes:
        normalize: whether each vector is scaled to length 1. Left out: as the model's files say.
        prompt_name: a prompt that the model's files define, such as "query", goes before each text.
        prompt: this goes before each text; excludes `prompt_name`.
        dimensions: only the first so many numbers are kept, for models trained for it.
        element_type: the type of the numbers; float32 by default.
        pooling: how a text's token vectors become one. Left out: as the model's files say.
    """

    normalize: bool | None
    prompt_name: str | None
    prompt: str | None
    dimensions: int | None
    element_type: Literal["float32", "float16", "int8", "binary"] | None
    pooling: Literal["mean", "cls", "last_token", "max"] | None


class EmbedOptions(InferenceOptions, VectorOptions, TruncationOptions, total=False):
    """What `embed` takes."""


class EmbedStreamOptions(EmbedOptions, total=False):
    """What `embed_stream` takes.

    Attributes:
        batch_size: the most texts per message; 64 by default. Long texts make smaller batches.
        max_batches_in_flight: so many batches are sent ahead of their answers; 8 by default.
    """

    batch_size: int | None
    max_batches_in_flight: int | None


class ClassifyOptions(InferenceOptions, TruncationOptions, total=False):
    """What `classify` takes.

    Attributes:
        labels: labels to choose from, for models that are not bound to their own.
        hypothesis_template: with `labels`, a sentence in which "{}" stands for a label.
        multi_label: whether labels are independent of each other. Left out: as the model's files
            say.
        top_k: only the best so many labels are returned.
        raw_scores: scores are logits instead of probabilities.
    """

    labels: Sequence[str] | None
    hypothesis_template: str | None
    multi_label: bool | None
    top_k: int | None
    raw_scores: bool | None


class RerankOptions(InferenceOptions, TruncationOptions, total=False):
    """What `rerank` takes.

    Attributes:
        top_n: only the best so many documents are returned.
        return_documents: the documents' texts are returned too.
        raw_scores: scores are as the model gives them, instead of from 0 to 1.
        method: how to compare. Left out: the best that the model can.
    """

    top_n: int | None
    return_documents: bool | None
    raw_scores: bool | None
    method: (
        Literal["cross_encoder", "embedding_similarity", "late_interaction", "likelihood"] | None
    )


class TranslationOptions(TypedDict, total=False):
    """How to translate.

    Attributes:
        beam_size: how many hypotheses beam search keeps; 1 is greedy.
        num_alternatives: how many translations of each sentence to return.
        length_penalty: exponent of the length by which a score is divided.
        max_tokens: the most tokens of one sentence's translation.
        repetition_penalty: above 1 makes tokens that occurred already less likely.
        no_repeat_ngram_size: no sequence of so many tokens occurs twice; 0 is off.
        sentence_splitting: how texts are cut into sentences; "when_long" by default.
    """

    beam_size: int | None
    num_alternatives: int | None
    length_penalty: float | None
    max_tokens: int | None
    repetition_penalty: float | None
    no_repeat_ngram_size: int | None
    sentence_splitting: Literal["when_long", "always", "never"] | None


class TranslateOptions(InferenceOptions, TranslationOptions, total=False):
    """What `translate` and `translate_stream` take.

    Attributes:
        source_language: a BCP 47 tag, or the model's own code. Left out: the model's only one.
        target_language: likewise.
        target_prefix: what each translation must begin with: one for all texts, or one per text.
    """

    source_language: str | None
    target_language: str | None
    target_prefix: str | Sequence[str] | None


class ScoreOptions(InferenceOptions, total=False):
    """What `score` takes.

    Attributes:
        top_logprobs: alternatives per token, at most 20.
        omit_token_logprobs: only the sums are returned.
    """

    top_logprobs: int | None
    omit_token_logprobs: bool | None
