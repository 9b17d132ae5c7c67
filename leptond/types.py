"""Frozen values that the layers share: what is asked of a model and what comes back.

No behaviour beyond derived properties. Built by `leptond.server.convert` (from the wire) or by a
test; read on any thread. Every time is `time.monotonic()` in seconds unless its name says else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = [
    "FinishReason",
    "GenerationRequest",
    "GenerationSummary",
    "ModelDescription",
    "ModelLoad",
    "ModelState",
    "Phase",
    "PhaseName",
    "RequestProgress",
    "SamplingParams",
    "ScoringRequest",
    "StopConditions",
    "StreamPacing",
    "Task",
    "TokenChunk",
    "TokenLogprob",
    "Usage",
]


class Task(StrEnum):
    """What a model can be asked for; declared by its backend, never guessed."""

    GENERATE = "generate"
    CHAT = "chat"
    EMBED = "embed"
    CLASSIFY = "classify"
    RERANK = "rerank"
    TRANSLATE = "translate"
    SCORE = "score"
    INFER = "infer"


class FinishReason(StrEnum):
    """Why a text ended."""

    STOP = "stop"  # a stop token or a stop string
    LENGTH = "length"  # max_tokens or the end of the context
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen. Ranges are checked in `leptond.server.convert`.

    Order of application: repetition penalty, presence and frequency penalties and logit bias,
    temperature, then top_k, top_p, min_p on the resulting distribution, each on what the one
    before left (the order of vLLM and of Hugging Face's warpers).

    Attributes:
        temperature: 0 is greedy: the other filters then change nothing.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose mass reaches top_p; 1 keeps all.
        min_p: drop tokens less likely than min_p times the likeliest; 0 drops none.
        seed: equal seeds and equal logits give equal texts; None draws a fresh one.
        repetition_penalty: of every token in prompt and answer; > 1 discourages; 1 is off.
        presence_penalty: subtracted once from every token of the answer; 0 is off.
        frequency_penalty: subtracted per occurrence in the answer; 0 is off.
        logit_bias: token id to the value added to its logit.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True)
class StopConditions:
    """When a text ends.

    Attributes:
        max_tokens: most tokens to sample, at least 1; already cut to the room in the context.
        stop_token_ids: tokens that end the text; they are in `token_ids` and not in the text.
        stop_strings: strings that end the text, also across token borders; never in the text.
        min_tokens: stop tokens are not sampled before so many tokens; 0 is off.
    """

    max_tokens: int
    stop_token_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()
    min_tokens: int = 0


@dataclass(frozen=True, slots=True)
class StreamPacing:
    """How tokens are gathered into messages. The first token always leaves at once.

    Attributes:
        interval_tokens: tokens a message waits for; 1 sends each as the reader keeps up.
        interval_s: a message leaves at the latest so long after the one before; 0 is off.
            With both set, whichever comes first.
    """

    interval_tokens: int = 1
    interval_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One text to generate, tokenised: what the scheduler works on.

    Attributes:
        id: the daemon's own unique id of the call; never the caller's label.
        prompt_ids: at least one token id.
        deadline: monotonic time by which the last token must be out; None when there is none.
        priority: higher first; 0 is the default.
        num_top_logprobs: None for no logprobs, n for those of the sampled token and n others.
        tenant, cache_salt: never shared between: nothing computed for one serves another.
        skip_special: leave control tokens out of the text.
    """

    id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    stop: StopConditions
    deadline: float | None = None
    priority: int = 0
    num_top_logprobs: int | None = None
    tenant: str = ""
    cache_salt: str = ""
    skip_special: bool = True


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """One text whose likelihood is asked for: an answer that is given instead of sampled.

    Attributes:
        context_ids: what comes before it: at least one token.
        target_ids: the tokens to score: at least one.
        num_top_logprobs: so many alternatives of each token.
        id, deadline, priority, tenant: as of `GenerationRequest`.
    """

    id: str
    context_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    num_top_logprobs: int = 0
    deadline: float | None = None
    priority: int = 0
    tenant: str = ""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """All that the model reads: the last token of the target predicts nothing that is asked."""
        return (*self.context_ids, *self.target_ids[:-1])


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural-log probability of one token under the model's own (unprocessed) distribution.

    Attributes:
        token: the token's exact bytes, which need not be valid UTF-8.
        top: the likeliest tokens of that position, best first, without `top` of their own.
    """

    token_id: int
    logprob: float
    token: bytes
    top: tuple[TokenLogprob, ...] = ()


@dataclass(slots=True)
class TokenChunk:
    """What one step gave one request. Not frozen only because one is made per token.

    Attributes:
        token_ids: sampled tokens, a stop token included.
        text: whole characters only; may be empty while a character or a stop string is open.
        logprobs: one per token id when the request asked for them, else empty.
    """

    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class PhaseName(StrEnum):
    """The consecutive phases of an inference, in order; queue and prefill may open again."""

    TOKENIZE = "tokenize"
    QUEUE = "queue"
    PREFILL = "prefill"
    DECODE = "decode"
    DELIVER = "deliver"


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of an inference: `[start, end]`, monotonic seconds."""

    name: PhaseName
    start: float
    end: float

    @property
    def duration_s(self) -> float:
        """Length of the phase in seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request: prompt, of those from a cache, and sampled."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class RequestProgress:
    """How far a request is: its consecutive phases, the open one up to now, and its tokens."""

    phases: tuple[Phase, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class GenerationSummary:
    """How one generation ended.

    Attributes:
        matched_stop: the stop string or the id of the stop token that ended it, else None.
        phases: queue, prefill and decode, consecutive, as the worker saw them.
    """

    finish_reason: FinishReason
    usage: Usage
    phases: tuple[Phase, ...]
    matched_stop: str | int | None = None


class ModelState(StrEnum):
    """Life of a model: see `leptond.models.lifecycle` for the machine."""

    AVAILABLE = "available"  # on disk, loadable on demand
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What is known of one variant of one model, loaded or not.

    Attributes:
        name: `model` or `model:variant`, as a caller may write it.
        variant: precision on an engine, such as `int8`.
        is_default: whether plain `model` means this variant.
        state_reason: why it failed, or what the load is doing.
        max_context_tokens: prompt and answer together; 0 for models without a context.
        metadata: facts for people: architecture, parameters, source, licence.
    """

    name: str
    model: str
    variant: str
    version: int
    backend: str
    precision: str
    is_default: bool
    state: ModelState
    state_reason: str
    tasks: frozenset[Task]
    max_context_tokens: int
    estimated_bytes: int
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """How busy one loaded model is at this moment.

    Attributes:
        num_queued, num_running: requests waiting and requests holding a slot.
        max_queued, max_running: their limits.
        num_queued_tokens: prompt tokens that wait to be prefilled.
        kv_tokens, max_kv_tokens: tokens in the KV arena and its room.
        tokens_per_s: sampled tokens per second over the last seconds.
    """

    num_queued: int
    num_running: int
    max_queued: int
    max_running: int
    num_queued_tokens: int
    kv_tokens: int
    max_kv_tokens: int
    tokens_per_s: float
