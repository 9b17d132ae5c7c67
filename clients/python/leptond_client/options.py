"""The keyword arguments of the client's methods, each said once for both clients.

Every one can be left out, or be None, which is the same: the daemon's and the model's own defaults
hold then. The names are those of the API, whose protos say the ranges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

__all__ = [
    "CallOptions",
    "ChatOptions",
    "ChatStreamOptions",
    "ConversationOptions",
    "DetokenizeOptions",
    "GenerateOptions",
    "GenerateStreamOptions",
    "InferenceOptions",
    "OutputOptions",
    "PacingOptions",
    "RawPromptOptions",
    "RequestOptions",
    "SamplingOptions",
    "TokenizeOptions",
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
