"""`Score`: how likely given texts are, on engines of either kind.

Context and target are tokenised apart from each other, so that the scored tokens are the target's
own. On the event loop; tokenising runs on threads.
"""

from __future__ import annotations

import time

from leptond.errors import InvalidRequest, LeptondError, RequestTooLarge
from leptond.models import ModelRegistry, ServedModel
from leptond.server.batching import BatchCalls
from leptond.server.calls import Call
from leptond.server.convert import requests, responses
from leptond.server.encoding import check_count
from leptond.server.leases import leased
from leptond.server.likelihood import Scorer, Target, encode_target
from leptond.server.prompts import chat_prompt_ids, raw_prompt_ids
from leptond.telemetry import SCORE
from leptond.types import Task
from leptond.v1 import scoring_pb2

__all__ = ["ScoringMethods"]

_MAX_TOP_LOGPROBS = 20
_MAX_ENTRIES = 1 << 18  # log-probabilities of one answer, alternatives included


class ScoringMethods:
    """Score, by its name in snake case."""

    def __init__(
        self, models: ModelRegistry, batches: BatchCalls, limits: requests.RequestLimits
    ) -> None:
        self._models = models
        self._batches = batches
        self._limits = limits

    async def score(
        self, request: scoring_pb2.ScoreRequest, call: Call
    ) -> scoring_pb2.ScoreResponse:
        """The likelihood of every text; one that is wrong fails the call, by its index."""
        label = await requests.begin(request, call, self._batches.pool)
        check_count(len(request.inputs), "inputs")
        if request.top_logprobs > _MAX_TOP_LOGPROBS:
            msg = f"top_logprobs is {request.top_logprobs}; at most {_MAX_TOP_LOGPROBS}"
            raise InvalidRequest(msg, field="top_logprobs")
        async with leased(self._models, request.model, request.model_version, call) as model:
            times = responses.CallTimes(call.started, time.monotonic())
            model.require(Task.SCORE, Task.GENERATE)
            requests.check_determinism(request.options, model.name, model.capabilities)
            model.scheduler.require_room()
            targets = [
                await self._read(one, index, model) for index, one in enumerate(request.inputs)
            ]
            scorer = Scorer(
                model,
                self._batches,
                call,
                SCORE,
                times,
                num_top=request.top_logprobs,
                priority=request.options.priority,
            )
            num_entries = sum(len(one.target_ids) for one in targets)
            if num_entries * (1 + request.top_logprobs) > _MAX_ENTRIES:
                msg = f"inputs have more than {_MAX_ENTRIES} log-probabilities to return"
                raise RequestTooLarge(msg, field="inputs")
            found = await scorer.score(targets)
            now = time.monotonic()
            response = scoring_pb2.ScoreResponse(
                info=responses.response_info(
                    label=label,
                    call_id=call.id,
                    model=model.name,
                    version=model.variant.version,
                    prompt_tokens=scorer.usage.prompt_tokens,
                    timing=responses.timing(times, scorer.phases(now), now),
                )
            )

            def fill() -> None:
                for entries in found:
                    result = response.results.add(
                        logprob=sum(entry.logprob for entry in entries), num_tokens=len(entries)
                    )
                    if not request.omit_token_logprobs:
                        result.tokens.CopyFrom(responses.logprobs(entries))

            await self._batches.pool.run(fill)
            return response

    async def _read(self, wire: scoring_pb2.ScoreInput, index: int, model: ServedModel) -> Target:
        where = f"inputs[{index}]"
        match wire.WhichOneof("target"):
            case "text":
                target = await encode_target(wire.text, model, self._batches, f"{where}.text")
            case "token_ids":
                field = f"{where}.token_ids.ids"
                limit = model.max_context_tokens
                size = model.capabilities.vocab_size
                target = requests.prompt_ids(wire.token_ids.ids, size, limit, field)
            case _:
                raise InvalidRequest(f"{where} has no target", field=where)
        pool = self._batches.pool
        try:
            match wire.WhichOneof("context"):
                case "prompt":
                    return Target(await raw_prompt_ids(wire.prompt, model, pool), target, where)
                case "chat":
                    ids = await chat_prompt_ids(wire.chat, model, pool, self._limits)
                    return Target(ids, target, where)
        except LeptondError as error:
            raise _at(error, where, str(wire.WhichOneof("context"))) from error
        return _without_context(target, model, where)


def _without_context(target: tuple[int, ...], model: ServedModel, where: str) -> Target:
    """From the second token on, or from the first behind the token that begins every text."""
    if model.text.encoder is not None:
        raise InvalidRequest(f"{where} has no prompt for the encoder to read", field=where)
    tokenizer = model.tokenizer
    if tokenizer.add_bos and tokenizer.bos_id is not None:
        return Target((tokenizer.bos_id,), target, where)
    if len(target) == 1:
        msg = f"{where} has one token and nothing before it: there is nothing to score"
        raise InvalidRequest(msg, field=where)
    return Target(target[:1], target[1:], where)


def _at(error: LeptondError, where: str, context: str) -> LeptondError:
    """The same error with the path of the field as it is in a ScoreRequest."""
    inner = (error.field or "").removeprefix("input").removeprefix(".")
    field = ".".join(part for part in (where, context, inner) if part)
    return type(error)(f"{field}: {error.message}", field=field, details=error.details)
