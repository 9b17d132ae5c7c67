"""From the wire to our values: every range is checked here, every error names field and limit.

On the event loop, before anything is queued. Nothing here looks at a model except through the few
facts of it that bound a request.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from leptond.backend import Capabilities
from leptond.errors import InvalidRequest, RequestTooLarge, UnsupportedCapability
from leptond.server.calls import Call
from leptond.server.convert.supported import refuse_unsupported
from leptond.streaming import BlockingPool
from leptond.text import ChatMessage
from leptond.types import SamplingParams, StopConditions, StreamPacing
from leptond.v1 import chat_pb2, common_pb2, generation_pb2, message_pb2, sampling_pb2

__all__ = [
    "RequestLimits",
    "begin",
    "chat_messages",
    "check_determinism",
    "check_salt",
    "num_top_logprobs",
    "optional",
    "pacing",
    "prompt_ids",
    "sampling_params",
    "stop_conditions",
]

_MAX_LABEL_BYTES = 128
_LARGE_REQUEST_BYTES = 32 << 10  # walking through it takes about a millisecond
_MAX_LOGPROBS = 20
_MAX_PENALTY = 2.0
_MAX_STOP_TOKEN_IDS = 1024
_MAX_LOGIT_BIASES = 1024
# Beyond these a float32 logit can leave the finite numbers.
_MAX_LOGIT_BIAS = 10_000.0
_REPETITION_PENALTIES = (0.01, 100.0)
_ROLES = {
    message_pb2.ROLE_SYSTEM: "system",
    message_pb2.ROLE_DEVELOPER: "system",
    message_pb2.ROLE_USER: "user",
    message_pb2.ROLE_ASSISTANT: "assistant",
    message_pb2.ROLE_TOOL: "tool",
}


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds that the operator sets, the same for every model.

    Attributes:
        default_max_tokens: for requests that set no max_tokens.
        max_stop_strings: how many stop strings a request may have.
        max_stop_bytes: how long one may be, in bytes of UTF-8.
        max_messages: how many messages a chat may have.
    """

    default_max_tokens: int = 1024
    max_stop_strings: int = 16
    max_stop_bytes: int = 1024
    max_messages: int = 10_000


async def begin(wire: Any, call: Call, pool: BlockingPool) -> str:
    """Refuse what is not honoured and take over the call's options; answers the caller's label.

    A large request is looked through on a thread, so that the loop serves others meanwhile.

    Raises:
        UnsupportedCapability: a field is set that this daemon does not honour.
        InvalidRequest: the label is none.
    """
    if wire.ByteSize() > _LARGE_REQUEST_BYTES:
        await pool.run(refuse_unsupported, wire)
    else:
        refuse_unsupported(wire)
    options = wire.options
    label = _check_label(options.request_id, "options.request_id")
    call.record.set_label(label)
    if options.HasField("timeout_ms"):
        call.limit_time(options.timeout_ms / 1000)
    return label


T = TypeVar("T")


class TokenIdList(Protocol):
    """A repeated field of token ids, or a tuple of them."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


def optional(wire: Message, name: str, default: T) -> T:
    """A field with presence: its value, or `default` where it is not set."""
    value: T = getattr(wire, name)
    return value if wire.HasField(name) else default


def check_salt(text: str, field: str) -> str:
    """A key of the caller's own: at most 128 bytes of UTF-8."""
    if len(text) > _MAX_LABEL_BYTES or len(text.encode()) > _MAX_LABEL_BYTES:
        raise InvalidRequest(f"{field} is longer than {_MAX_LABEL_BYTES} bytes", field=field)
    return text


def check_determinism(
    options: common_pb2.RequestOptions, model: str, capabilities: Capabilities
) -> None:
    """Refuse a promise that the model's engine cannot keep.

    Raises:
        UnsupportedCapability: the caller wants the same bits in any company.
    """
    if options.deterministic and not capabilities.is_deterministic:
        field = "options.deterministic"
        msg = f"{field}: the answers of model {model} depend on what runs beside them"
        raise UnsupportedCapability(msg, field=field)


def _check_label(text: str, field: str) -> str:
    """A caller's label: at most 128 bytes of visible ASCII; it goes into logs and headers."""
    if len(text) > _MAX_LABEL_BYTES or not all("!" <= char <= "~" for char in text):
        msg = f"{field} must be at most {_MAX_LABEL_BYTES} characters of visible ASCII"
        raise InvalidRequest(msg, field=field)
    return text


def sampling_params(
    wire: sampling_pb2.SamplingParams, defaults: Mapping[str, float], vocab_size: int
) -> SamplingParams:
    """How tokens are chosen. An unset field takes the model's default, then the API's.

    Raises:
        InvalidRequest: a value is out of its range, or not a number.
        UnsupportedCapability: more than one choice.
    """
    if wire.HasField("num_choices") and wire.num_choices != 1:
        if wire.num_choices == 0:
            raise InvalidRequest("sampling.num_choices must be at least 1",
                                 field="sampling.num_choices")  # fmt: skip
        raise UnsupportedCapability("sampling.num_choices above 1 is not supported yet",
                                    field="sampling.num_choices")  # fmt: skip

    def number(
        name: str, default: float, low: float, high: float, *, is_open: bool = False
    ) -> float:
        value = optional(wire, name, default=defaults.get(name, default))
        return _in_range(float(value), f"sampling.{name}", low, high, is_open=is_open)

    return SamplingParams(
        temperature=number("temperature", 1.0, 0.0, math.inf),
        top_p=number("top_p", 1.0, 0.0, 1.0, is_open=True),
        top_k=wire.top_k if wire.HasField("top_k") else int(defaults.get("top_k", 0)),
        min_p=number("min_p", 0.0, 0.0, 1.0),
        seed=wire.seed if wire.HasField("seed") else None,
        repetition_penalty=number("repetition_penalty", 1.0, *_REPETITION_PENALTIES),
        frequency_penalty=number("frequency_penalty", 0.0, -_MAX_PENALTY, _MAX_PENALTY),
        presence_penalty=number("presence_penalty", 0.0, -_MAX_PENALTY, _MAX_PENALTY),
        logit_bias=_logit_bias(wire, vocab_size),
    )


def stop_conditions(
    wire: sampling_pb2.SamplingParams,
    limits: RequestLimits,
    *,
    num_prompt_tokens: int,
    max_context_tokens: int,
    model_stop_ids: Iterable[int],
    vocab_size: int,
) -> tuple[StopConditions, str]:
    """When the text ends, and which limit bounds its length: `request`, `default` or `context`.

    Raises:
        InvalidRequest: a count or a stop is out of range.
        RequestTooLarge: the prompt leaves no room for one token.
    """
    room = max_context_tokens - num_prompt_tokens
    if room < 1:
        msg = (
            f"input has {num_prompt_tokens} tokens; with at least one token of answer the model "
            f"takes {max_context_tokens}"
        )
        raise RequestTooLarge(msg, field="input")
    if wire.HasField("max_tokens"):
        if wire.max_tokens < 1:
            raise InvalidRequest(
                "sampling.max_tokens must be at least 1", field="sampling.max_tokens"
            )
        wanted, bound = wire.max_tokens, "request"
    else:
        wanted, bound = limits.default_max_tokens, "default"
    if wanted > room:
        wanted, bound = room, "context"
    if wire.min_tokens > wanted:
        msg = f"sampling.min_tokens is {wire.min_tokens}; at most {wanted} tokens can be sampled"
        raise InvalidRequest(msg, field="sampling.min_tokens")
    own = () if wire.ignore_eos else model_stop_ids
    _check_count(len(wire.stop_token_ids), _MAX_STOP_TOKEN_IDS, "sampling.stop_token_ids")
    for token_id in wire.stop_token_ids:
        _check_token_id(token_id, vocab_size, "sampling.stop_token_ids")
    stop = StopConditions(
        max_tokens=wanted,
        stop_token_ids=frozenset((*own, *wire.stop_token_ids)),
        stop_strings=_stop_strings(wire.stop, limits),
        min_tokens=wire.min_tokens,
    )
    return stop, bound


def num_top_logprobs(wire: generation_pb2.OutputOptions) -> int | None:
    """None for no log-probabilities, else how many alternatives."""
    if not wire.HasField("logprobs"):
        return None
    if wire.logprobs > _MAX_LOGPROBS:
        msg = f"output.logprobs is {wire.logprobs}; at most {_MAX_LOGPROBS} alternatives are given"
        raise InvalidRequest(msg, field="output.logprobs")
    return wire.logprobs


def pacing(wire: generation_pb2.StreamOptions) -> StreamPacing:
    """How tokens are gathered. An interval of time alone sets no count."""
    interval_s = wire.stream_interval_ms / 1000
    tokens = wire.stream_interval_tokens or (0 if interval_s else 1)
    return StreamPacing(interval_tokens=tokens, interval_s=interval_s)


def prompt_ids(ids: TokenIdList, vocab_size: int, max_tokens: int, field: str) -> tuple[int, ...]:
    """Token ids as a caller gave them, all of them the model's."""
    if not ids:
        raise InvalidRequest(f"{field} is empty", field=field)
    if len(ids) > max_tokens:  # before any of them is looked at
        msg = f"{field} has {len(ids)} tokens; the model takes {max_tokens}"
        raise RequestTooLarge(msg, field=field)
    checked = tuple(ids)
    if max(checked) >= vocab_size:
        _check_token_id(max(checked), vocab_size, field)
    return checked


def chat_messages(wire: chat_pb2.ChatInput, limits: RequestLimits) -> list[ChatMessage]:
    """The conversation, texts of one message joined.

    Raises:
        InvalidRequest: no message, too many, a message without a role, or a final message that
            cannot be continued.
    """
    if not wire.messages:
        raise InvalidRequest("input.messages is empty", field="input.messages")
    if len(wire.messages) > limits.max_messages:
        msg = f"input.messages has {len(wire.messages)}; at most {limits.max_messages} are taken"
        raise RequestTooLarge(msg, field="input.messages")
    if wire.continue_final_message:
        if wire.messages[-1].role != message_pb2.ROLE_ASSISTANT:
            field = "input.continue_final_message"
            raise InvalidRequest(f"{field} needs a last message of the assistant", field=field)
        if wire.add_generation_prompt:
            field = "input.add_generation_prompt"
            raise InvalidRequest(f"{field} excludes input.continue_final_message", field=field)
    return [_chat_message(message, index) for index, message in enumerate(wire.messages)]


def _chat_message(message: message_pb2.Message, index: int) -> ChatMessage:
    field = f"input.messages[{index}]"
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidRequest(f"{field}.role is not set or not known", field=f"{field}.role")
    for part_index, part in enumerate(message.content):
        if part.WhichOneof("kind") is None:
            part_field = f"{field}.content[{part_index}]"
            raise InvalidRequest(f"{part_field} holds nothing", field=part_field)
    return ChatMessage(role=role, content="".join(part.text for part in message.content))


def _logit_bias(wire: sampling_pb2.SamplingParams, vocab_size: int) -> dict[int, float]:
    _check_count(len(wire.logit_bias), _MAX_LOGIT_BIASES, "sampling.logit_bias")
    bias = dict(wire.logit_bias)
    for token_id, value in bias.items():
        field = f"sampling.logit_bias[{token_id}]"
        _check_token_id(token_id, vocab_size, field)
        _in_range(value, field, -_MAX_LOGIT_BIAS, _MAX_LOGIT_BIAS, is_open=False)
    return bias


def _stop_strings(strings: Iterable[str], limits: RequestLimits) -> tuple[str, ...]:
    stops = tuple(strings)
    if len(stops) > limits.max_stop_strings:
        msg = f"sampling.stop has {len(stops)} strings; at most {limits.max_stop_strings} are taken"
        raise InvalidRequest(msg, field="sampling.stop")
    for index, stop in enumerate(stops):
        field = f"sampling.stop[{index}]"
        if not stop:
            raise InvalidRequest(f"{field} is empty", field=field)
        if len(stop.encode()) > limits.max_stop_bytes:
            msg = f"{field} is longer than {limits.max_stop_bytes} bytes"
            raise InvalidRequest(msg, field=field)
    return stops


def _check_count(count: int, limit: int, field: str) -> None:
    if count > limit:
        raise RequestTooLarge(
            f"{field} has {count} entries; at most {limit} are taken", field=field
        )


def _check_token_id(token_id: int, vocab_size: int, field: str) -> None:
    if token_id >= vocab_size:
        msg = f"{field}: token {token_id} is not in the model's vocabulary of {vocab_size}"
        raise InvalidRequest(msg, field=field)


def _in_range(value: float, field: str, low: float, high: float, *, is_open: bool) -> float:
    """A finite value in `[low, high]`, or in `(low, high]` when the interval is open below."""
    is_inside = (low < value if is_open else low <= value) and value <= high
    if not (math.isfinite(value) and is_inside):
        ends = f"{'above' if is_open else 'at least'} {low:g}"
        ends += "" if math.isinf(high) else f" and at most {high:g}"
        raise InvalidRequest(f"{field} is {value:g}; it must be finite, {ends}", field=field)
    return value
