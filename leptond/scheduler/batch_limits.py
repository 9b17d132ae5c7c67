"""What one model of whole calls can take, and which requests it can never serve.

Resolved once, when the scheduler is made, from what the model declares, what its session was
asked for and what the operator set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from leptond.backend import BatchRow, Capabilities, SessionKind, SessionOptions
from leptond.errors import InvalidRequest, RequestTooLarge, UnsupportedCapability
from leptond.scheduler.batch_plan import BatchBounds
from leptond.scheduler.batch_request import BatchRequest
from leptond.scheduler.limits import RequestLimits
from leptond.scheduler.options import SchedulerOptions
from leptond.types import GenerationRequest, SamplingParams, Task

__all__ = ["BatchLimits"]


@dataclass(frozen=True, slots=True)
class BatchLimits(RequestLimits):
    """Bounds without a 0 that means something else.

    Attributes:
        bounds: of one run.
        max_answer_tokens: of a decoder with a context of its own; 0: prompt and answer share one.
        generates: whether the model continues a prompt.
        gives_way: whether its runs let others have the cores in between: they answer token by
            token.
        sampling_options: see `Capabilities`.
    """

    bounds: BatchBounds
    max_answer_tokens: int
    generates: bool
    gives_way: bool
    sampling_options: frozenset[str]

    @classmethod
    def resolve(
        cls,
        name: str,
        capabilities: Capabilities,
        session: SessionOptions,
        options: SchedulerOptions,
        *,
        has_tokenizer: bool,
    ) -> BatchLimits:
        """Put into one what all sides allow.

        Raises:
            UnsupportedCapability: the model does not answer whole calls.
        """
        if capabilities.kind is not SessionKind.BATCH:
            raise UnsupportedCapability(f"model {name} does not answer whole calls")
        max_rows = min(
            options.max_running or session.num_slots,
            session.num_slots,
            capabilities.max_batch_rows,
        )
        return cls(
            name=name,
            vocab_size=capabilities.vocab_size,
            max_context_tokens=min(capabilities.max_context_tokens, session.max_tokens),
            max_running=max_rows,
            has_tokenizer=has_tokenizer,
            bounds=BatchBounds(max_rows, options.batch_token_budget),
            max_answer_tokens=capabilities.max_answer_tokens,
            generates=not capabilities.tasks.isdisjoint({Task.GENERATE, Task.CHAT}),
            gives_way=capabilities.is_streaming,
            sampling_options=capabilities.sampling_options,
        )

    def answer_room(self, num_prompt_tokens: int) -> int:
        """See `RequestLimits.answer_room`."""
        if not self.max_answer_tokens:
            return RequestLimits.answer_room(self, num_prompt_tokens)
        return self.max_answer_tokens if num_prompt_tokens <= self.max_context_tokens else 0

    def check_items(self, request: BatchRequest) -> None:
        """Refuse what can never be served.

        Raises:
            InvalidRequest: no items, or an item of no cost. Tokens are checked by the session:
                to look at each is no work for the event loop.
            RequestTooLarge: an item is longer than the model takes.
        """
        if not request.items:
            raise InvalidRequest("the request has no items", field="items")
        for index, item in enumerate(request.items):
            num_tokens = len(item.row.token_ids)
            field = f"items[{index}]"
            if item.cost_tokens < 1:
                raise InvalidRequest(f"{field} costs {item.cost_tokens} tokens", field=field)
            if num_tokens > self.max_context_tokens:
                raise RequestTooLarge(
                    f"{field} has {num_tokens} tokens; model {self.name} takes at most "
                    f"{self.max_context_tokens}",
                    field=field,
                )

    def check_generation(self, request: GenerationRequest) -> None:
        """Refuse what can never be served, and by its name what the engine would not honour.

        Raises:
            RequestTooLarge, InvalidRequest: see `RequestLimits.check`.
            UnsupportedCapability: the model generates no text, or not with that option.
        """
        if not self.generates:
            raise UnsupportedCapability(f"model {self.name} does not generate text")
        self.check(request)
        for option in _options_in_use(request):
            # No chunk has room for other tokens than those chosen.
            if option not in self.sampling_options or option == "top_logprobs":
                raise UnsupportedCapability(
                    f"model {self.name} generates in whole calls, which do not honour {option}",
                    field=option,
                )
        changes_scores = request.sampling.repetition_penalty != 1 or request.stop.min_tokens
        if request.num_top_logprobs is not None and changes_scores:
            raise UnsupportedCapability(
                f"model {self.name} generates in whole calls, whose scores are taken after "
                "repetition_penalty and min_tokens: logprobs beside them are not the model's own",
                field="logprobs",
            )

    def generation_row(self, request: GenerationRequest, max_tokens: int) -> BatchRow:
        """Make the engine's row of a request, so that as many others as may be have equal options.

        The bound of the answer is rounded up to a power of two, as far as the context goes: the
        job ends its row by itself.
        """
        room = self.answer_room(len(request.prompt_ids))
        options: dict[str, Any] = {
            "task": Task.GENERATE.value,
            "beam_size": 1,
            "num_hypotheses": 1,
            "max_tokens": min(1 << (max_tokens - 1).bit_length(), room),
            "sampling": _effective(request.sampling),
            "stop_token_ids": tuple(sorted(request.stop.stop_token_ids)),
        }
        if request.stop.min_tokens:
            options["min_tokens"] = request.stop.min_tokens
        if request.num_top_logprobs is not None:
            options["logprobs"] = True
        return BatchRow(token_ids=request.prompt_ids, options=options)


def _effective(sampling: SamplingParams) -> SamplingParams:
    """The same without what changes nothing: greedy choice knows no filters and no chance."""
    if not sampling.is_greedy:
        return sampling
    return replace(sampling, top_k=0, top_p=1.0, min_p=0.0, seed=None)


def _options_in_use(request: GenerationRequest) -> Iterator[str]:
    """Name the options of `SAMPLING_OPTIONS` that differ from their defaults."""
    effective, default = _effective(request.sampling), SamplingParams()
    for option in fields(SamplingParams):
        if getattr(effective, option.name) != getattr(default, option.name):
            yield option.name
    if request.stop.min_tokens:
        yield "min_tokens"
    if request.num_top_logprobs is not None:
        yield "top_logprobs" if request.num_top_logprobs else "logprobs"
