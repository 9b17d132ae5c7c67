"""Every call of the API as a value: where it goes, what it says, what its answer means.

The two clients differ in how they carry a call out, not in what it is. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message as WireMessage

from leptond.v1 import chat_pb2, generation_pb2, management_pb2, tokenization_pb2
from leptond_client import health_messages, options, requests, responses, values
from leptond_client.responses import Fold

__all__ = [
    "StreamCall",
    "UnaryCall",
    "chat",
    "chat_stream",
    "check",
    "check_names",
    "detokenize",
    "generate",
    "generate_stream",
    "get_load",
    "health",
    "load_model",
    "models",
    "tokenize",
    "unload_model",
    "watch",
]

T = TypeVar("T")
ItemT = TypeVar("ItemT")
FinalT = TypeVar("FinalT")

_TEXT = "leptond.v1.TextGenerationService"
_MANAGEMENT = "leptond.v1.ManagementService"
_HEALTH = health_messages.SERVICE


@dataclass(frozen=True, slots=True)
class UnaryCall(Generic[T]):
    """A call with one answer.

    Attributes:
        path: the method, as gRPC spells it.
        request: the request.
        decode: the answer's bytes to its message.
        convert: the answer's message to the value that the caller gets.
        options: the caller's keyword arguments, of which the transport reads `timeout`.
    """

    path: str
    request: WireMessage
    decode: Callable[[bytes], Any]
    convert: Callable[[Any], T]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StreamCall(Generic[ItemT, FinalT]):
    """A call with a stream of answers; `fold` makes what understands them, once per attempt."""

    path: str
    request: WireMessage
    decode: Callable[[bytes], Any]
    fold: Callable[[], Fold[ItemT, FinalT]]
    options: Mapping[str, Any]


def generate(
    model: str, prompt: requests.Prompt, given: options.GenerateOptions
) -> UnaryCall[values.Generation]:
    """Continue a raw prompt."""
    check_names(given, options.GenerateOptions)
    request = generation_pb2.GenerateRequest()
    requests.generate(request, model, prompt, given)
    decode = generation_pb2.GenerateResponse.FromString
    return UnaryCall(f"/{_TEXT}/Generate", request, decode, responses.generation, given)


def generate_stream(
    model: str, prompt: requests.Prompt, given: options.GenerateStreamOptions
) -> StreamCall[values.Delta, values.Generation]:
    """Continue a raw prompt, piece by piece."""
    check_names(given, options.GenerateStreamOptions)
    request = generation_pb2.GenerateStreamRequest()
    requests.generate(request, model, prompt, given)
    decode = generation_pb2.GenerateStreamResponse.FromString
    return StreamCall(f"/{_TEXT}/GenerateStream", request, decode, responses.GenerationFold, given)


def chat(
    model: str, messages: Iterable[requests.MessageLike], given: options.ChatOptions
) -> UnaryCall[values.Generation]:
    """Answer a conversation."""
    check_names(given, options.ChatOptions)
    request = chat_pb2.ChatRequest()
    requests.chat(request, model, messages, given)
    return UnaryCall(
        f"/{_TEXT}/Chat", request, chat_pb2.ChatResponse.FromString, responses.chat, given
    )


def chat_stream(
    model: str, messages: Iterable[requests.MessageLike], given: options.ChatStreamOptions
) -> StreamCall[values.Delta, values.Generation]:
    """Answer a conversation, piece by piece."""
    check_names(given, options.ChatStreamOptions)
    request = chat_pb2.ChatStreamRequest()
    requests.chat(request, model, messages, given)
    decode = chat_pb2.ChatStreamResponse.FromString
    return StreamCall(f"/{_TEXT}/ChatStream", request, decode, responses.GenerationFold, given)


def tokenize(
    model: str, source: str | Iterable[requests.MessageLike], given: options.TokenizeOptions
) -> UnaryCall[values.Tokenization]:
    """Make tokens of a text or a conversation."""
    check_names(given, options.TokenizeOptions)
    request = requests.tokenize(model, source, given)
    decode = tokenization_pb2.TokenizeResponse.FromString
    return UnaryCall(f"/{_TEXT}/Tokenize", request, decode, responses.tokenization, given)


def detokenize(
    model: str, token_ids: Sequence[int], given: options.DetokenizeOptions
) -> UnaryCall[str]:
    """Make a text of tokens."""
    check_names(given, options.DetokenizeOptions)
    request = requests.detokenize(model, token_ids, given)
    decode = tokenization_pb2.DetokenizeResponse.FromString
    return UnaryCall(f"/{_TEXT}/Detokenize", request, decode, responses.detokenization, given)


def models(name: str, given: options.CallOptions) -> UnaryCall[tuple[values.Model, ...]]:
    """List the models of the store."""
    request = _named(management_pb2.ListModelsRequest(), name, given)
    decode = management_pb2.ListModelsResponse.FromString
    return UnaryCall(f"/{_MANAGEMENT}/ListModels", request, decode, responses.models, given)


def load_model(
    name: str, given: options.CallOptions
) -> StreamCall[values.LoadProgress, values.ModelVariant]:
    """Load a model."""
    request = _named(management_pb2.LoadModelRequest(), name, given)
    decode = management_pb2.LoadModelResponse.FromString
    return StreamCall(f"/{_MANAGEMENT}/LoadModel", request, decode, responses.LoadFold, given)


def unload_model(name: str, given: options.CallOptions) -> UnaryCall[values.UnloadedModels]:
    """Unload a model."""
    request = _named(management_pb2.UnloadModelRequest(), name, given)
    decode = management_pb2.UnloadModelResponse.FromString
    return UnaryCall(f"/{_MANAGEMENT}/UnloadModel", request, decode, responses.unloaded, given)


def get_load(name: str, given: options.CallOptions) -> UnaryCall[values.DaemonLoad]:
    """Ask how busy the daemon is."""
    request = _named(management_pb2.GetLoadRequest(), name, given)
    decode = management_pb2.GetLoadResponse.FromString
    return UnaryCall(f"/{_MANAGEMENT}/GetLoad", request, decode, responses.daemon_load, given)


def check(name: str, given: options.CallOptions) -> UnaryCall[values.ServingStatus]:
    """Ask for the health of a name."""
    request = _named(health_messages.HealthCheckRequest(), name, given, "service")
    decode = health_messages.HealthCheckResponse.FromString
    return UnaryCall(f"/{_HEALTH}/Check", request, decode, responses.serving_status, given)


def watch(name: str, given: options.CallOptions) -> StreamCall[values.ServingStatus, None]:
    """Follow the health of a name."""
    request = _named(health_messages.HealthCheckRequest(), name, given, "service")
    decode = health_messages.HealthCheckResponse.FromString
    return StreamCall(f"/{_HEALTH}/Watch", request, decode, responses.StatusFold, given)


def health(given: options.CallOptions) -> UnaryCall[dict[str, values.ServingStatus]]:
    """Ask for the health of everything."""
    check_names(given, options.CallOptions)
    request = health_messages.HealthListRequest()
    decode = health_messages.HealthListResponse.FromString
    return UnaryCall(f"/{_HEALTH}/List", request, decode, responses.health_report, given)


def _named(
    request: WireMessage, name: str, given: options.CallOptions, field: str = "model"
) -> Any:
    """A request that holds nothing but a name."""
    check_names(given, options.CallOptions)
    requests.fill(request, (field,), {field: name})
    return request


def check_names(given: Mapping[str, Any], known: type) -> None:
    """Refuse keyword arguments that `known` does not have, by a TypeError."""
    unknown = sorted(given.keys() - known.__annotations__.keys())
    if unknown:
        raise TypeError(f"no such option: {', '.join(unknown)}")
