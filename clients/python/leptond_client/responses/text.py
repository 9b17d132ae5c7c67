"""Answers and tokens."""

from __future__ import annotations

from leptond.v1 import (
    chat_pb2,
    common_pb2,
    generation_pb2,
    logprobs_pb2,
    message_pb2,
    tokenization_pb2,
)
from leptond_client import values
from leptond_client.responses.wire import cut_short, enum_value, only, same_fields

__all__ = [
    "GenerationFold",
    "chat",
    "detokenization",
    "finish_reason",
    "generation",
    "logprobs",
    "tokenization",
]


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
            logprobs=logprobs(chunk.logprobs) if chunk.HasField("logprobs") else (),
            finish_reason=finish_reason(chunk.finish_reason) if chunk.finish_reason else None,
        )
        self._text.append(delta.text)
        self._token_ids += delta.token_ids
        self._logprobs += delta.logprobs
        return delta

    def final(self) -> values.Generation:
        """The whole answer."""
        if self._info is None:
            raise cut_short()
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
    return _whole(response, only(response.choices, "choices").text)


def chat(response: chat_pb2.ChatResponse) -> values.Generation:
    """The answer to a conversation."""
    return _whole(response, _content(only(response.choices, "choices").message))


def _whole(
    response: generation_pb2.GenerateResponse | chat_pb2.ChatResponse, text: str
) -> values.Generation:
    choice = response.choices[0]
    return _generation(
        choice,
        response.info,
        text=text,
        token_ids=tuple(choice.token_ids),
        logprobs=logprobs(choice.logprobs),
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
        finish_reason=finish_reason(end.finish_reason),
        usage=same_fields(values.Usage, info.usage),
        timing=same_fields(values.Timing, info.timing),
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


def logprobs(wire: logprobs_pb2.Logprobs) -> tuple[values.TokenLogprob, ...]:
    """One entry per token."""
    tops = [_entries(top) for top in wire.top] or [()] * len(wire.token_ids)
    return tuple(
        values.TokenLogprob(entry.token_id, entry.token, entry.logprob, top)
        for entry, top in zip(_entries(wire), tops, strict=True)
    )


def _entries(
    wire: logprobs_pb2.Logprobs | logprobs_pb2.TopLogprobs,
) -> tuple[values.TokenLogprob, ...]:
    return tuple(map(values.TokenLogprob, wire.token_ids, wire.token_bytes, wire.logprobs))


def finish_reason(number: int) -> values.FinishReason:
    """Why a text ended."""
    return enum_value(values.FinishReason, common_pb2.FinishReason, "FINISH_REASON_", number)


def tokenization(response: tokenization_pb2.TokenizeResponse) -> values.Tokenization:
    """The tokens of the one input."""
    result = only(response.results, "results")
    return values.Tokenization(tuple(result.token_ids), result.rendered, tuple(result.token_bytes))


def detokenization(response: tokenization_pb2.DetokenizeResponse) -> str:
    """The text of the one list of tokens."""
    return only(response.results, "results").text
