"""`Tokenize` and `Detokenize` of `leptond.v1.TextGenerationService`. On the event loop."""

from __future__ import annotations

import time
from collections.abc import Sequence

from leptond.errors import InvalidRequest, RequestTooLarge, UnsupportedCapability
from leptond.models import ModelRegistry, ServedModel
from leptond.server.calls import Call
from leptond.server.convert import requests, responses
from leptond.server.leases import leased
from leptond.server.prompts import encode_text, render_chat
from leptond.streaming import BlockingPool
from leptond.types import Phase, PhaseName
from leptond.v1 import common_pb2, tokenization_pb2

__all__ = ["TokenizationMethods"]

_MAX_INPUTS = 1024
# Of one call: what keeps a thread of the pool busy for some tenths of a second.
_MAX_TEXT_BYTES = 4 << 20
_MAX_TOKENS = 1 << 18


class TokenizationMethods:
    """The two methods, by their names in snake case."""

    def __init__(
        self, models: ModelRegistry, pool: BlockingPool, limits: requests.RequestLimits
    ) -> None:
        self._models = models
        self._pool = pool
        self._limits = limits

    async def tokenize(
        self, request: tokenization_pb2.TokenizeRequest, call: Call
    ) -> tokenization_pb2.TokenizeResponse:
        """Token ids of texts and conversations."""
        _check_count(len(request.inputs), _MAX_INPUTS, "inputs")
        _check_count(request.ByteSize(), _MAX_TEXT_BYTES, "inputs", "bytes")
        label = await requests.begin(request, call, self._pool)
        async with (
            call.in_time(),
            leased(self._models, request.model, request.model_version, call) as model,
        ):
            leased_at = time.monotonic()
            results = [
                await self._tokenize(request, index, model) for index in range(len(request.inputs))
            ]
            num_tokens = sum(len(result.token_ids) for result in results)
            await call.commit()
            return tokenization_pb2.TokenizeResponse(
                results=results, info=_info(call, label, model, leased_at, num_tokens)
            )

    async def detokenize(
        self, request: tokenization_pb2.DetokenizeRequest, call: Call
    ) -> tokenization_pb2.DetokenizeResponse:
        """Texts of token ids."""
        _check_count(len(request.inputs), _MAX_INPUTS, "inputs")
        num_tokens = sum(len(ids.ids) for ids in request.inputs)
        _check_count(num_tokens, _MAX_TOKENS, "inputs", "tokens")
        label = await requests.begin(request, call, self._pool)
        async with (
            call.in_time(),
            leased(self._models, request.model, request.model_version, call) as model,
        ):
            leased_at = time.monotonic()
            skips = requests.optional(request, "skip_special_tokens", default=True)
            results = [
                await self._pool.run(_detokenize, ids, f"inputs[{index}].ids", model, skips)
                for index, ids in enumerate(request.inputs)
            ]
            await call.commit()
            return tokenization_pb2.DetokenizeResponse(
                results=results, info=_info(call, label, model, leased_at, num_tokens)
            )

    async def _tokenize(
        self, request: tokenization_pb2.TokenizeRequest, index: int, model: ServedModel
    ) -> tokenization_pb2.TokenizedText:
        wire = request.inputs[index]
        rendered = ""
        ids: Sequence[int]
        match wire.WhichOneof("kind"):
            case "text":
                text = wire.text
                ids = await encode_text(
                    text,
                    model,
                    self._pool,
                    parse_special=requests.optional(request, "parse_special", default=True),
                    add_special=requests.optional(request, "add_special_tokens", default=None),
                    field=f"inputs[{index}].text",
                )
            case "chat":
                rendered, ids = await render_chat(wire.chat, model, self._pool, self._limits)
                text = rendered
            case _:
                raise InvalidRequest(f"inputs[{index}] holds nothing", field=f"inputs[{index}]")
        result = tokenization_pb2.TokenizedText(token_ids=ids, rendered=rendered)
        if request.details:
            await self._pool.run(_add_details, result, text, model)
        return result


def _detokenize(
    wire: common_pb2.TokenIds,
    field: str,
    model: ServedModel,
    skip_special: bool,  # noqa: FBT001 - run by a pool
) -> tokenization_pb2.DetokenizedText:
    ids = requests.prompt_ids(
        wire.ids, model.capabilities.vocab_size, model.max_context_tokens, field
    )
    if model.text.writer is None:  # an encoder's vocabulary need not have bytes
        return tokenization_pb2.DetokenizedText(
            text=model.encoder.decode(ids, skip_special=skip_special)
        )
    tokenizer = model.tokenizer
    exact = b"".join(
        tokenizer.token_bytes(token_id)
        for token_id in ids
        if not (skip_special and tokenizer.is_special(token_id))
    )
    return tokenization_pb2.DetokenizedText(
        text=tokenizer.decode(ids, skip_special=skip_special), text_bytes=exact
    )


def _add_details(result: tokenization_pb2.TokenizedText, text: str, model: ServedModel) -> None:
    """Bytes and spans. The spans are counted from the bytes, so these must be the text's own."""
    if model.text.encoder is not None:
        msg = f"details: what the encoder of model {model.name} reads has no bytes of its own"
        raise UnsupportedCapability(msg, field="details")
    token_bytes = [model.tokenizer.token_bytes(token_id) for token_id in result.token_ids]
    encoded = text.encode()
    num_added = _num_added(token_bytes, encoded)
    if num_added is None:
        msg = f"details: the tokenizer of {model.name} changes the text, so tokens have no spans"
        raise UnsupportedCapability(msg, field="details")
    position = 0
    for index, piece in enumerate(token_bytes):
        result.token_bytes.append(piece)
        result.start_bytes.append(position)
        if index >= num_added:
            position += len(piece)
        result.end_bytes.append(position)


def _num_added(token_bytes: Sequence[bytes], encoded: bytes) -> int | None:
    """How many leading tokens are not in the text: none, or the one that begins every text."""
    for num_added in (0, 1):
        if b"".join(token_bytes[num_added:]) == encoded:
            return num_added
    return None


def _check_count(count: int, limit: int, field: str, unit: str = "entries") -> None:
    if not count:
        raise InvalidRequest(f"{field} is empty", field=field)
    if count > limit:
        msg = f"{field} has {count} {unit}; at most {limit} are taken in one call"
        raise RequestTooLarge(msg, field=field)


def _info(
    call: Call, label: str, model: ServedModel, leased_at: float, num_tokens: int
) -> common_pb2.ResponseInfo:
    now = time.monotonic()
    times = responses.CallTimes(call.started, leased_at)
    return responses.response_info(
        label=label,
        call_id=call.id,
        model=model.name,
        version=model.variant.version,
        prompt_tokens=num_tokens,
        timing=responses.timing(times, [Phase(PhaseName.TOKENIZE, leased_at, now)], now),
    )
