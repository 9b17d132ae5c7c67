"""From keyword arguments to the messages of the API. Pure; used by `leptond_client.calls`.

A value that a message cannot hold (a negative count, text that is no UTF-8) is `InvalidRequest`
with the field's path, the same error as where the daemon finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message as WireMessage

from leptond.v1 import chat_pb2, generation_pb2, message_pb2, tokenization_pb2
from leptond_client import options as known
from leptond_client.errors import InvalidRequest
from leptond_client.values import Message

__all__ = [
    "MessageLike",
    "Options",
    "Prompt",
    "chat",
    "detokenize",
    "fill",
    "fill_chat",
    "fill_common",
    "generate",
    "set_field",
    "tokenize",
]

Prompt = str | Sequence[int]
"""A raw prompt: text, or token ids."""

MessageLike = Message | Mapping[str, str]
"""A message of a conversation: a `Message`, or `{"role": ..., "content": ...}`."""

Options = Mapping[str, Any]
"""Keyword arguments, of one of the classes of `leptond_client.options`."""

_RequestT = TypeVar(
    "_RequestT",
    generation_pb2.GenerateRequest,
    generation_pb2.GenerateStreamRequest,
    chat_pb2.ChatRequest,
    chat_pb2.ChatStreamRequest,
)

_REQUEST = tuple(known.RequestOptions.__annotations__)
_SAMPLING = tuple(known.SamplingOptions.__annotations__)
_OUTPUT = tuple(known.OutputOptions.__annotations__)
_PACING = tuple(known.PacingOptions.__annotations__)
_RAW_PROMPT = tuple(known.RawPromptOptions.__annotations__)
_CONVERSATION = tuple(known.ConversationOptions.__annotations__)


def generate(
    request: generation_pb2.GenerateRequest | generation_pb2.GenerateStreamRequest,
    model: str,
    prompt: Prompt,
    options: Options,
) -> None:
    """Fill a request for the continuation of a raw prompt."""
    fill_common(request, model, options)
    if isinstance(prompt, str):
        set_field(request.input, "text", prompt, "input.")
    else:
        set_field(request.input.token_ids, "ids", prompt, "input.token_ids.")
    fill(request.input, _RAW_PROMPT, options, "input.")
    _fill_inference(request, options)


def chat(
    request: chat_pb2.ChatRequest | chat_pb2.ChatStreamRequest,
    model: str,
    messages: Iterable[MessageLike],
    options: Options,
) -> None:
    """Fill a request for the next message of a conversation."""
    fill_common(request, model, options)
    fill_chat(request.input, messages, options, "input.")
    _fill_inference(request, options)


def tokenize(
    model: str, source: str | Iterable[MessageLike], options: Options
) -> tokenization_pb2.TokenizeRequest:
    """A request for the tokens of one text or conversation."""
    request = tokenization_pb2.TokenizeRequest()
    fill_common(request, model, options)
    wire = request.inputs.add()
    if isinstance(source, str):
        set_field(wire, "text", source, "inputs[0].")
    else:
        wire.chat.SetInParent()
        fill_chat(wire.chat, source, options, "inputs[0].chat.")
    fill(request, (*_RAW_PROMPT, "details"), options)
    return request


def detokenize(
    model: str, token_ids: Sequence[int], options: Options
) -> tokenization_pb2.DetokenizeRequest:
    """A request for the text of one list of tokens."""
    request = tokenization_pb2.DetokenizeRequest()
    fill_common(request, model, options)
    set_field(request.inputs.add(), "ids", token_ids, "inputs[0].")
    fill(request, ("skip_special_tokens",), options)
    return request


def fill(message: WireMessage, names: Iterable[str], options: Options, path: str = "") -> None:
    """Set those fields of `message` that `options` holds and that are not None."""
    for name in names:
        value = options.get(name)
        if value is not None:
            set_field(message, name, value, path)


def fill_common(message: Any, model: str, options: Options) -> None:
    """Set what every request to a model has: the model and how the call is treated."""
    set_field(message, "model", model, "")
    fill(message, ("model_version",), options)
    fill(message.options, _REQUEST, options, "options.")


def _fill_inference(request: Any, options: Options) -> None:
    sampling = dict(options)
    if isinstance(options.get("stop"), str):
        sampling["stop"] = [options["stop"]]
    fill(request.sampling, _SAMPLING, sampling, "sampling.")
    fill(request.output, _OUTPUT, options, "output.")
    if "stream" in request.DESCRIPTOR.fields_by_name:
        fill(request.stream, _PACING, options, "stream.")


def fill_chat(
    wire: chat_pb2.ChatInput, messages: Iterable[MessageLike], options: Options, path: str
) -> None:
    """Set a conversation; `path` is that of `wire` in its request, with a dot at its end."""
    for index, message in enumerate(messages):
        role, content = _role_and_content(message)
        field = f"{path}messages[{index}]"
        number = message_pb2.Role.DESCRIPTOR.values_by_name.get(f"ROLE_{role.upper()}")
        if number is None or number.number == message_pb2.ROLE_UNSPECIFIED:
            raise InvalidRequest(f"{field}.role: {role!r} is none", field=f"{field}.role")
        part = wire.messages.add(role=message_pb2.Role.ValueType(number.number)).content.add()
        set_field(part, "text", content, f"{field}.content.")
    fill(wire, _CONVERSATION, options, path)


def _role_and_content(message: MessageLike) -> tuple[str, str]:
    if isinstance(message, Message):
        return message.role, message.content
    if message.keys() != {"role", "content"}:
        raise InvalidRequest(f"a message has a role and a content, not {sorted(message)}")
    return message["role"], message["content"]


def set_field(message: WireMessage, name: str, value: Any, path: str) -> None:
    """Set one field; one that repeats is extended.

    Raises:
        InvalidRequest: the field cannot hold the value.
    """
    field = f"{path}{name}"
    try:
        if isinstance(value, Mapping):
            getattr(message, name).update(value)
        elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    except UnicodeEncodeError as error:
        msg = f"{field} is not text that UTF-8 can hold: {error.reason} at {error.start}"
        raise InvalidRequest(msg, field=field) from error
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{field}: {error}", field=field) from error
