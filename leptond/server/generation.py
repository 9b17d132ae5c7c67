"""The generating methods of `leptond.v1.TextGenerationService`.

On the event loop. The way of a request: refuse what is not honoured → lease the model → tokenise →
submit to the scheduler → commit → hand on what the stream brings → say how it ended.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from leptond.errors import UnsupportedCapability
from leptond.models import ModelRegistry, ServedModel
from leptond.server.calls import Call
from leptond.server.convert import requests, responses
from leptond.server.inference import GenerationInference
from leptond.server.leases import leased
from leptond.server.prompts import chat_prompt_ids, raw_prompt_ids
from leptond.streaming import BlockingPool, LoopBridge
from leptond.telemetry import CHAT, TEXT_COMPLETION
from leptond.types import GenerationRequest, StreamPacing
from leptond.v1 import chat_pb2, generation_pb2, message_pb2, sampling_pb2

__all__ = ["GenerationMethods"]

# A stream's buffer, in steps. A reader that is so far behind has its row paused; an interval that
# gathers more than half of it would wait for what the paused row cannot make.
_MAX_BUFFERED = 1024
_MAX_INTERVAL_TOKENS = _MAX_BUFFERED // 2

Encode = Callable[[ServedModel], Awaitable[tuple[int, ...]]]


class GenerationMethods:
    """Generate, GenerateStream, Chat and ChatStream, by their names in snake case.

    Args:
        models: where models come from.
        bridge: makes the streams between workers and this loop.
        pool: threads for tokenisation.
        limits: the operator's bounds.
    """

    def __init__(
        self,
        models: ModelRegistry,
        bridge: LoopBridge,
        pool: BlockingPool,
        limits: requests.RequestLimits,
    ) -> None:
        self._models = models
        self._bridge = bridge
        self._pool = pool
        self._limits = limits

    async def generate(
        self, request: generation_pb2.GenerateRequest, call: Call
    ) -> generation_pb2.GenerateResponse:
        """Continue a raw prompt; the whole answer in one message."""
        return await self._whole(request, call, TEXT_COMPLETION, self._encode_raw(request))

    async def generate_stream(
        self, request: generation_pb2.GenerateStreamRequest, call: Call
    ) -> None:
        """Continue a raw prompt; a message per piece."""
        respond = generation_pb2.GenerateStreamResponse
        await self._streamed(request, call, TEXT_COMPLETION, self._encode_raw(request), respond)

    async def chat(self, request: chat_pb2.ChatRequest, call: Call) -> chat_pb2.ChatResponse:
        """Answer a conversation; the whole answer in one message."""
        whole = await self._whole(request, call, CHAT, self._encode_chat(request))
        prompt = whole.prompt if whole.HasField("prompt") else None
        response = chat_pb2.ChatResponse(info=whole.info, prompt=prompt)
        response.choices.extend(_chat_choice(choice) for choice in whole.choices)
        return response

    async def chat_stream(self, request: chat_pb2.ChatStreamRequest, call: Call) -> None:
        """Answer a conversation; a message per piece."""
        respond = chat_pb2.ChatStreamResponse
        await self._streamed(request, call, CHAT, self._encode_chat(request), respond)

    def _encode_raw(self, request: Any) -> Encode:
        return lambda model: raw_prompt_ids(request.input, model, self._pool)

    def _encode_chat(self, request: Any) -> Encode:
        return lambda model: chat_prompt_ids(request.input, model, self._pool, self._limits)

    async def _whole(
        self, wire: Any, call: Call, operation: str, encode: Encode
    ) -> generation_pb2.GenerateResponse:
        """Run to the end and gather everything in one message."""
        gather_all = StreamPacing(interval_tokens=1 << 30)
        async with self._admitted(wire, call, operation, encode, gather_all) as inference:
            stream, model = inference.stream, inference.model
            items = []
            while batch := await stream.next():
                items += batch
            inference.summary = stream.final
            response = generation_pb2.GenerateResponse(info=inference.info(call))
            choice = response.choices.add()
            responses.fill(choice, items, model.tokenizer.token_bytes)
            if choice.HasField("logprobs"):
                choice.score = sum(choice.logprobs.logprobs)
            responses.finish(choice, inference.summary, inference.length_bound)
            if wire.output.prompt_token_ids:
                response.prompt.token_ids.extend(inference.request.prompt_ids)
            return response

    async def _streamed(
        self, wire: Any, call: Call, operation: str, encode: Encode, respond: Callable[..., Any]
    ) -> None:
        """Send each piece as it comes; the last one says how it ended."""
        async with self._admitted(
            wire, call, operation, encode, _pacing(wire), is_streamed=True
        ) as inference:
            stream, write = inference.stream, call.write
            token_bytes = inference.model.tokenizer.token_bytes
            message = respond()
            if wire.output.prompt_token_ids:
                message.prompt.token_ids.extend(inference.request.prompt_ids)
            num_tokens = 0
            while True:
                items = await stream.next()
                piece = message.chunk
                piece.token_offset = num_tokens
                num_tokens += responses.fill(piece, items, token_bytes)
                if not items or stream.is_finished:
                    break
                await write(message)
                message = respond()
            inference.summary = stream.final
            responses.finish(piece, inference.summary, inference.length_bound)
            message.info.CopyFrom(inference.info(call))
            await write(message)

    @asynccontextmanager
    async def _admitted(
        self,
        wire: Any,
        call: Call,
        operation: str,
        encode: Encode,
        pacing: StreamPacing,
        *,
        is_streamed: bool = False,
    ) -> AsyncIterator[GenerationInference]:
        """Admit a request; while the block runs its row is the scheduler's, after it nobody's."""
        label = await requests.begin(wire, call, self._pool)
        async with leased(self._models, wire.model, wire.model_version, call) as model:
            times = responses.CallTimes(call.started, time.monotonic())
            model.scheduler.require_room()
            request, bound = self._request(wire, call, model, await encode(model))
            stream = self._bridge.open_stream(
                pacing,
                max_buffered=_MAX_BUFFERED if is_streamed else request.stop.max_tokens + 1,
            )
            try:
                progress = model.generate(request, stream)
            except UnsupportedCapability as error:
                raise _by_wire_name(error) from error
            inference = GenerationInference(
                operation=operation,
                label=label,
                model=model,
                request=request,
                stream=stream,
                length_bound=bound,
                times=times,
                progress=progress,
                is_streamed=is_streamed,
            )
            call.stream = stream
            try:
                await call.commit()
                yield inference
            except BaseException as error:
                inference.record(call, error)
                raise
            else:
                inference.record(call, None)
            finally:
                stream.cancel()

    def _request(
        self, wire: Any, call: Call, model: ServedModel, ids: tuple[int, ...]
    ) -> tuple[GenerationRequest, str]:
        vocab_size = model.capabilities.vocab_size
        requests.check_determinism(wire.options, model.name, model.capabilities)
        # A decoder with a context of its own bounds the answer alone.
        own_context = model.capabilities.max_answer_tokens
        stop, bound = requests.stop_conditions(
            wire.sampling,
            self._limits,
            num_prompt_tokens=0 if own_context else len(ids),
            max_context_tokens=own_context or model.max_context_tokens,
            model_stop_ids=model.tokenizer.stop_ids,
            vocab_size=vocab_size,
        )
        output = wire.output
        request = GenerationRequest(
            id=call.id,
            prompt_ids=ids,
            sampling=requests.sampling_params(
                wire.sampling, model.tokenizer.generation.sampling, vocab_size
            ),
            stop=stop,
            deadline=call.deadline,
            priority=wire.options.priority,
            num_top_logprobs=requests.num_top_logprobs(output),
            cache_salt=requests.check_salt(wire.options.cache_salt, "options.cache_salt"),
            skip_special=requests.optional(output, "skip_special_tokens", default=True),
        )
        return request, bound


def _by_wire_name(error: UnsupportedCapability) -> UnsupportedCapability:
    """The same refusal, of the field as the caller wrote it."""
    name = error.field
    if name in ("logprobs", "top_logprobs"):
        field = "output.logprobs"
    elif name in sampling_pb2.SamplingParams.DESCRIPTOR.fields_by_name:
        field = f"sampling.{name}"
    else:
        return error
    return UnsupportedCapability(f"{field}: {error.message}", field=field)


def _pacing(wire: Any) -> StreamPacing:
    asked = requests.pacing(wire.stream)
    return StreamPacing(min(asked.interval_tokens, _MAX_INTERVAL_TOKENS), asked.interval_s)


def _chat_choice(choice: generation_pb2.GenerationChoice) -> chat_pb2.ChatChoice:
    """The same choice as a message of the assistant, which can be sent back as it is."""
    answer = chat_pb2.ChatChoice(
        index=choice.index,
        token_ids=choice.token_ids,
        token_bytes=choice.token_bytes,
        finish_reason=choice.finish_reason,
        message=message_pb2.Message(
            role=message_pb2.ROLE_ASSISTANT,
            content=[message_pb2.ContentPart(text=choice.text)],
        ),
    )
    if choice.HasField("logprobs"):
        answer.logprobs.CopyFrom(choice.logprobs)
        answer.score = choice.score
    match choice.WhichOneof("matched_stop"):
        case "stop_string":
            answer.stop_string = choice.stop_string
        case "stop_token_id":
            answer.stop_token_id = choice.stop_token_id
    return answer
