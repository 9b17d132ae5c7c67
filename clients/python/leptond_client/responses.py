"""From the messages of the API to the client's values. Pure; used by `leptond_client.calls`.

A `Fold` takes the messages of a stream one by one, gives what each means and, at the end, what they
mean together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from leptond.v1 import (
    chat_pb2,
    common_pb2,
    generation_pb2,
    logprobs_pb2,
    management_pb2,
    message_pb2,
    model_pb2,
    tokenization_pb2,
)
from leptond_client import values
from leptond_client.errors import InternalError
from leptond_client.health_messages import STATUSES

__all__ = [
    "Fold",
    "GenerationFold",
    "LoadFold",
    "StatusFold",
    "chat",
    "daemon_load",
    "detokenization",
    "generation",
    "health_report",
    "models",
    "serving_status",
    "tokenization",
    "unloaded",
]

ItemT_co = TypeVar("ItemT_co", covariant=True)
FinalT_co = TypeVar("FinalT_co", covariant=True)
ValueT = TypeVar("ValueT")
EnumT = TypeVar("EnumT", bound=StrEnum)


class Fold(Protocol[ItemT_co, FinalT_co]):
    """What the messages of one stream mean."""

    def add(self, message: Any) -> ItemT_co | None:
        """Take the next message; None when it holds nothing for the caller."""

    def final(self) -> FinalT_co:
        """What the whole stream said, once it has ended well."""


# ------------------------------------------------------------------------------------ generation
class GenerationFold:
    """Pieces of an answer, and the whole. For `generate_stream` and `chat_stream` alike."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._logprobs: list[values.TokenLogprob] = []
        self._prompt_token_ids: tuple[int, ...] = ()
        self._last = generation_pb2.TokenChunk()
        self._info: common_pb2.ResponseInfo | None = None

    def add(
        self, message: generation_pb2.GenerateStreamResponse | chat_pb2.ChatStreamResponse
    ) -> values.Delta | None:
        """The piece in one message."""
        if message.HasField("prompt"):
            self._prompt_token_ids = tuple(message.prompt.token_ids)
        if message.HasField("info"):
            self._info = message.info
        if not message.HasField("chunk"):
            return None
        chunk = self._last = message.chunk
        delta = values.Delta(
            text=chunk.text,
            token_ids=tuple(chunk.token_ids),
            logprobs=_logprobs(chunk.logprobs) if chunk.HasField("logprobs") else (),
            finish_reason=_finish_reason(chunk.finish_reason) if chunk.finish_reason else None,
        )
        self._text.append(delta.text)
        self._token_ids += delta.token_ids
        self._logprobs += delta.logprobs
        return delta

    def final(self) -> values.Generation:
        """The whole answer."""
        if self._info is None:
            raise InternalError("the stream ended without its final message", was_admitted=True)
        return _generation(
            self._last,
            self._info,
            text="".join(self._text),
            token_ids=tuple(self._token_ids),
            logprobs=tuple(self._logprobs),
            prompt_token_ids=self._prompt_token_ids,
        )


def generation(response: generation_pb2.GenerateResponse) -> values.Generation:
    """The answer to a raw prompt."""
    return _whole(response, _only(response.choices, "choices").text)


def chat(response: chat_pb2.ChatResponse) -> values.Generation:
    """The answer to a conversation."""
    return _whole(response, _content(_only(response.choices, "choices").message))


def _whole(
    response: generation_pb2.GenerateResponse | chat_pb2.ChatResponse, text: str
) -> values.Generation:
    choice = response.choices[0]
    return _generation(
        choice,
        response.info,
        text=text,
        token_ids=tuple(choice.token_ids),
        logprobs=_logprobs(choice.logprobs),
        prompt_token_ids=tuple(response.prompt.token_ids),
    )


def _generation(
    end: generation_pb2.TokenChunk | generation_pb2.GenerationChoice | chat_pb2.ChatChoice,
    info: common_pb2.ResponseInfo,
    *,
    text: str,
    token_ids: tuple[int, ...],
    logprobs: tuple[values.TokenLogprob, ...],
    prompt_token_ids: tuple[int, ...],
) -> values.Generation:
    matched = end.WhichOneof("matched_stop")
    return values.Generation(
        text=text,
        token_ids=token_ids,
        finish_reason=_finish_reason(end.finish_reason),
        usage=_same_fields(values.Usage, info.usage),
        timing=_same_fields(values.Timing, info.timing),
        logprobs=logprobs,
        matched_stop=None if matched is None else getattr(end, matched),
        prompt_token_ids=prompt_token_ids,
        model=info.model,
        model_version=info.model_version,
        request_id=info.request_id,
        server_request_id=info.server_request_id,
    )


def _content(message: message_pb2.Message) -> str:
    return "".join(part.text for part in message.content)


def _logprobs(wire: logprobs_pb2.Logprobs) -> tuple[values.TokenLogprob, ...]:
    tops = [_entries(top) for top in wire.top] or [()] * len(wire.token_ids)
    return tuple(
        values.TokenLogprob(entry.token_id, entry.token, entry.logprob, top)
        for entry, top in zip(_entries(wire), tops, strict=True)
    )


def _entries(
    wire: logprobs_pb2.Logprobs | logprobs_pb2.TopLogprobs,
) -> tuple[values.TokenLogprob, ...]:
    return tuple(map(values.TokenLogprob, wire.token_ids, wire.token_bytes, wire.logprobs))


def _finish_reason(number: int) -> values.FinishReason:
    return _enum(values.FinishReason, common_pb2.FinishReason, "FINISH_REASON_", number)


# ---------------------------------------------------------------------------------- tokenization
def tokenization(response: tokenization_pb2.TokenizeResponse) -> values.Tokenization:
    """The tokens of the one input."""
    result = _only(response.results, "results")
    return values.Tokenization(tuple(result.token_ids), result.rendered, tuple(result.token_bytes))


def detokenization(response: tokenization_pb2.DetokenizeResponse) -> str:
    """The text of the one list of tokens."""
    return _only(response.results, "results").text


# ------------------------------------------------------------------------------------ management
class LoadFold:
    """How far a load is, and what was loaded."""

    def __init__(self) -> None:
        self._variant: model_pb2.ModelVariant | None = None

    def add(self, message: management_pb2.LoadModelResponse) -> values.LoadProgress:
        """The progress in one message."""
        if message.HasField("variant"):
            self._variant = message.variant
        return values.LoadProgress(
            model=message.model,
            state=_model_state(message.state),
            stage=message.stage,
            fraction=message.fraction,
            loaded_bytes=message.loaded_bytes,
            total_bytes=message.total_bytes,
            elapsed_ms=message.elapsed_ms,
        )

    def final(self) -> values.ModelVariant:
        """The variant that is ready."""
        if self._variant is None:
            raise InternalError("the stream ended without its final message", was_admitted=True)
        return _variant(self._variant)


def models(response: management_pb2.ListModelsResponse) -> tuple[values.Model, ...]:
    """The models of the store."""
    return tuple(
        values.Model(
            name=wire.name,
            default_variant=wire.default_variant,
            versions=tuple(wire.versions),
            variants=tuple(map(_variant, wire.variants)),
            description=wire.description,
            license=wire.license,
            source=wire.source,
        )
        for wire in response.models
    )


def unloaded(response: management_pb2.UnloadModelResponse) -> values.UnloadedModels:
    """What was unloaded."""
    return values.UnloadedModels(tuple(response.models), response.freed_bytes)


def daemon_load(response: management_pb2.GetLoadResponse) -> values.DaemonLoad:
    """How busy the daemon is."""
    return values.DaemonLoad(
        models=tuple(_same_fields(values.ModelLoad, wire) for wire in response.models),
        num_calls=response.num_calls,
        is_draining=response.is_draining,
        uptime_s=response.uptime_ms / 1000,
    )


def _variant(wire: model_pb2.ModelVariant) -> values.ModelVariant:
    return values.ModelVariant(
        name=wire.name,
        version=wire.version,
        is_default=wire.is_default,
        precision=wire.precision,
        quantization=wire.quantization,
        backend=wire.backend,
        architecture=wire.architecture,
        tasks=tuple(_task(number) for number in wire.capabilities.tasks),
        max_context_tokens=wire.capabilities.max_context_tokens,
        state=_model_state(wire.state),
        state_reason=wire.state_reason,
        device=wire.device,
        disk_bytes=wire.disk_bytes,
        memory_bytes=wire.memory_bytes,
    )


def _model_state(number: int) -> values.ModelState:
    return _enum(values.ModelState, model_pb2.ModelState, "MODEL_STATE_", number)


def _task(number: int) -> str:
    return _name(model_pb2.Task, "TASK_", number) or str(number)


# ---------------------------------------------------------------------------------------- health
class StatusFold:
    """Health as it changes. A watch has no end of its own."""

    def add(self, message: Any) -> values.ServingStatus:
        """The status in one message."""
        return serving_status(message)

    def final(self) -> None:
        """Nothing."""


def serving_status(response: Any) -> values.ServingStatus:
    """The status that a HealthCheckResponse holds."""
    return STATUSES.get(response.status, values.ServingStatus.UNKNOWN)


def health_report(response: Any) -> dict[str, values.ServingStatus]:
    """The statuses in a HealthListResponse, by name."""
    return {name: serving_status(status) for name, status in response.statuses.items()}


# ---------------------------------------------------------------------------------------- common
def _only(items: Iterable[ValueT], name: str) -> ValueT:
    found = list(items)
    if len(found) != 1:
        msg = f"the answer has {len(found)} {name} where one was asked for"
        raise InternalError(msg, was_admitted=True)
    return found[0]


def _same_fields(kind: type[ValueT], wire: Any) -> ValueT:
    """A value whose fields are called like those of the message."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # our dataclasses
    return kind(**{name: getattr(wire, name) for name in names})


def _enum(kind: type[EnumT], wire: Any, prefix: str, number: int) -> EnumT:
    """The member of the same name; UNSPECIFIED for one that is newer than this client."""
    name = _name(wire, prefix, number)
    return kind[name.upper()] if name else kind["UNSPECIFIED"]


def _name(wire: Any, prefix: str, number: int) -> str:
    described = wire.DESCRIPTOR.values_by_number.get(number)
    return described.name.removeprefix(prefix).lower() if described else ""
