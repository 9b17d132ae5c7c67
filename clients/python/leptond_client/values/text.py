"""Messages, answers and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

__all__ = [
    "Delta",
    "FinishReason",
    "Generation",
    "Message",
    "Role",
    "Timing",
    "TokenLogprob",
    "Tokenization",
    "Usage",
]

Role = Literal["system", "developer", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str


class FinishReason(StrEnum):
    """Why a text ended.

    STOP: the model ended it, or a stop string or stop token was met. LENGTH: `max_tokens` was
    reached. DEFAULT_LENGTH: the daemon's own limit, because none was set. CONTEXT_LENGTH: the
    model's context is full. TOOL_CALLS: the model asks for tools.
    """

    UNSPECIFIED = "unspecified"
    STOP = "stop"
    LENGTH = "length"
    DEFAULT_LENGTH = "default_length"
    CONTEXT_LENGTH = "context_length"
    TOOL_CALLS = "tool_calls"


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts of tokens.

    Attributes:
        prompt_tokens: tokens of the prompt, cached ones included.
        completion_tokens: tokens sampled, the stop token included.
        cached_tokens: those of the prompt that were not computed, because a cache had them.
        reasoning_tokens: those of the completion that were reasoning.
        draft_tokens: tokens that speculation proposed.
        accepted_draft_tokens: those of them that were right.
        truncated_tokens: tokens cut off the prompt, where that was allowed.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0
    truncated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time went, in milliseconds of the daemon's clock; the phases follow one another.

    Attributes:
        load_ms: waiting for the model to be loaded.
        tokenize_ms: rendering templates and making tokens.
        queue_ms: waiting for a place in a batch.
        prefill_ms: from the first step with the prompt to the first token.
        decode_ms: from the first token to the last.
        delivery_ms: from the last token to the last message.
        first_token_ms: from the call's arrival to its first token.
        total_ms: from the call's arrival to the last message.
    """

    load_ms: float = 0.0
    tokenize_ms: float = 0.0
    queue_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    delivery_ms: float = 0.0
    first_token_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token and its natural-log probability, before penalties and temperature.

    Attributes:
        token_id: the token.
        token: its exact bytes, which need not be whole characters.
        logprob: its log-probability.
        top: the likeliest tokens at its position, likeliest first; empty unless asked for.
    """

    token_id: int
    token: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer, as it comes. The pieces, joined in their order, are the whole.

    Attributes:
        text: whole characters only, so it can be empty although there are tokens.
        token_ids: all tokens sampled since the last piece.
        logprobs: one entry per token, where asked for.
        finish_reason: why the answer ended, in its last piece.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """A whole answer, of a raw prompt or of a conversation.

    Attributes:
        text: without what ended it.
        token_ids: all sampled tokens, the stop token included.
        finish_reason: why it ended.
        usage: what was read and written.
        timing: where the time went.
        logprobs: one entry per token of `token_ids`, where asked for.
        matched_stop: the stop string or the token that ended it, with STOP.
        prompt_token_ids: the prompt as the model saw it, where asked for.
        model: what answered, as "model:variant".
        model_version: its version.
        request_id: the caller's label of the call, or the daemon's id.
        server_request_id: the daemon's own id of the call.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timing: Timing
    logprobs: tuple[TokenLogprob, ...] = ()
    matched_stop: str | int | None = None
    prompt_token_ids: tuple[int, ...] = ()
    model: str = ""
    model_version: int = 0
    request_id: str = ""
    server_request_id: str = ""


@dataclass(frozen=True, slots=True)
class Tokenization:
    """The tokens of a text or of a conversation.

    Attributes:
        token_ids: the tokens.
        rendered: the conversation as its template writes it; empty for a text.
        token_bytes: the exact bytes of each token, where `details` were asked for.
    """

    token_ids: tuple[int, ...]
    rendered: str = ""
    token_bytes: tuple[bytes, ...] = ()
