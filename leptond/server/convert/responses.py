"""From our values to the wire. `fill` runs once per message of every stream: it is kept lean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leptond.types import (
    FinishReason,
    GenerationSummary,
    Phase,
    PhaseName,
    TokenChunk,
    TokenLogprob,
)
from leptond.v1 import common_pb2, generation_pb2, logprobs_pb2

__all__ = ["CallTimes", "fill", "finish", "finish_reason", "logprobs", "response_info", "timing"]

_LENGTH_REASONS = {
    "request": common_pb2.FINISH_REASON_LENGTH,
    "default": common_pb2.FINISH_REASON_DEFAULT_LENGTH,
    "context": common_pb2.FINISH_REASON_CONTEXT_LENGTH,
}


def fill(
    target: generation_pb2.TokenChunk | generation_pb2.GenerationChoice,
    items: Sequence[TokenChunk],
    token_bytes: Callable[[int], bytes],
) -> int:
    """Write text and tokens of everything that waited for a message, in order; how many tokens.

    `target` is filled where it stands, in its response: a message given to another is copied.
    """
    if len(items) == 1 and not items[0].logprobs:  # as good as always
        (item,) = items
        ids: Sequence[int] = item.token_ids
        target.text = item.text
    else:
        ids = [token_id for item in items for token_id in item.token_ids]
        target.text = "".join([item.text for item in items])
        if entries := [entry for item in items for entry in item.logprobs]:
            target.logprobs.CopyFrom(logprobs(entries))
    target.token_ids.extend(ids)
    target.token_bytes.extend([token_bytes(token_id) for token_id in ids])
    return len(ids)


def logprobs(entries: Sequence[TokenLogprob]) -> logprobs_pb2.Logprobs:
    """Log-probabilities of consecutive tokens."""
    return logprobs_pb2.Logprobs(
        token_ids=[entry.token_id for entry in entries],
        token_bytes=[entry.token for entry in entries],
        logprobs=[entry.logprob for entry in entries],
        top=[
            logprobs_pb2.TopLogprobs(
                token_ids=[other.token_id for other in entry.top],
                token_bytes=[other.token for other in entry.top],
                logprobs=[other.logprob for other in entry.top],
            )
            for entry in entries
            if entry.top
        ],
    )


def finish_reason(
    summary: GenerationSummary, length_bound: str
) -> common_pb2.FinishReason.ValueType:
    """Why a text ended; `length_bound` says whose limit it was (see `stop_conditions`)."""
    if summary.finish_reason is FinishReason.LENGTH:
        return _LENGTH_REASONS[length_bound]
    return common_pb2.FINISH_REASON_STOP


def finish(
    target: generation_pb2.TokenChunk | generation_pb2.GenerationChoice,
    summary: GenerationSummary,
    length_bound: str,
) -> None:
    """Write into a choice, or the last piece of one, why it ended."""
    target.finish_reason = finish_reason(summary, length_bound)
    if isinstance(summary.matched_stop, str):
        target.stop_string = summary.matched_stop
    elif summary.matched_stop is not None:
        target.stop_token_id = summary.matched_stop


@dataclass(frozen=True, slots=True)
class CallTimes:
    """Moments of a call that the scheduler does not see; monotonic seconds.

    Attributes:
        arrived: the call's first byte.
        leased: the model was there.
    """

    arrived: float
    leased: float


def timing(times: CallTimes, phases: Sequence[Phase], now: float) -> common_pb2.Timing:
    """Where the time went up to `now`, in milliseconds."""
    spent = dict.fromkeys(PhaseName, 0.0)
    for phase in phases:
        spent[phase.name] += phase.duration_s * 1000
    first_tokens = [phase.end for phase in phases if phase.name is PhaseName.PREFILL]
    first_token = first_tokens[0] if first_tokens else now
    return common_pb2.Timing(
        load_ms=(times.leased - times.arrived) * 1000,
        tokenize_ms=spent[PhaseName.TOKENIZE],
        queue_ms=spent[PhaseName.QUEUE],
        prefill_ms=spent[PhaseName.PREFILL],
        decode_ms=spent[PhaseName.DECODE],
        delivery_ms=spent[PhaseName.DELIVER],
        first_token_ms=(first_token - times.arrived) * 1000,
        total_ms=(now - times.arrived) * 1000,
    )


def response_info(
    *,
    label: str,
    call_id: str,
    model: str,
    version: int,
    prompt_tokens: int,
    completion_tokens: int = 0,
    cached_tokens: int = 0,
    timing: common_pb2.Timing,
) -> common_pb2.ResponseInfo:
    """What is known of a call at its end."""
    return common_pb2.ResponseInfo(
        request_id=label or call_id,
        server_request_id=call_id,
        model=model,
        model_version=version,
        usage=common_pb2.Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cached_tokens=cached_tokens,
        ),
        timing=timing,
    )
