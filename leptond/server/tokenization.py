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
        label = requests.begin(request, call)
        _check_count(len(request.inputs))
        async with leased(self._models, request.model, request.model_version, call) as model:
            leased_at = time.monotonic()
            await call.commit()
            results = [
                await self._tokenize(request, index, model) for index in range(len(request.inputs))
            ]
            num_tokens = sum(len(result.token_ids) for result in results)
            return tokenization_pb2.TokenizeResponse(
                results=results, info=_info(call, label, model, leased_at, num_tokens)
            )

    async def detokenize(
        self, request: tokenization_pb2.DetokenizeRequest, call: Call
    ) -> tokenization_pb2.DetokenizeResponse:
        """Texts of token ids."""
        label = requests.begin(request, call)
        _check_count(len(request.inputs))
        async with leased(self._models, request.model, request.model_version, call) as model:
            leased_at = time.monotonic()
            lists = [
                requests.prompt_ids(
                    ids.ids,
                    model.capabilities.vocab_size,
                    model.max_context_tokens,
                    f"inputs[{index}].ids",
                )
                for index, ids in enumerate(request.inputs)
            ]
            await call.commit()
            skips = requests.optional(request, "skip_special_tokens", default=True)
            results = [await self._pool.run(_detokenize, ids, model, skips) for ids in lists]
            num_tokens = sum(map(len, lists))
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
                    wire.text,
                    model,
                    self._pool,
                    parse_special=requests.optional(request, "parse_special", default=True),
                    add_special=requests.optional(request, "add_special_tokens", default=None),
                    field=f"inputs[{index}].text",
                )
            case "chat":
                text = rendered = ""
                rendered, ids = await render_chat(wire.chat, model, self._pool, self._limits)
                text = rendered
            case _:
                raise InvalidRequest(f"inputs[{index}] holds nothing", field=f"inputs[{index}]")
        result = tokenization_pb2.TokenizedText(token_ids=ids, rendered=rendered)
        if request.details:
            _add_details(result, text, model)
        return result


def _detokenize(
    ids: Sequence[int],
    model: ServedModel,
    skip_special: bool,  # noqa: FBT001 - run by a pool
) -> tokenization_pb2.DetokenizedText:
    exact = b"".join(
        model.tokenizer.token_bytes(token_id)
        for token_id in ids
        if not (skip_special and model.tokenizer.is_special(token_id))
    )
    return tokenization_pb2.DetokenizedText(
        text=model.tokenizer.decode(ids, skip_special=skip_special), text_bytes=exact
    )


def _add_details(result: tokenization_pb2.TokenizedText, text: str, model: ServedModel) -> None:
    """Bytes and spans. The spans are counted from the bytes, so these must be the text's own."""
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


def _check_count(count: int) -> None:
    if not count:
        raise InvalidRequest("inputs is empty", field="inputs")
    if count > _MAX_INPUTS:
        msg = f"inputs has {count}; at most {_MAX_INPUTS} are taken"
        raise RequestTooLarge(msg, field="inputs")


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
