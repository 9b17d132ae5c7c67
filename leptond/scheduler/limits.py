"""What one model and its session can take, and which requests it can never serve.

Resolved once, when the scheduler is made, from what the model declares, what its session was
asked for and what the operator set.
"""

from __future__ import annotations

from dataclasses import dataclass

from leptond.backend import Capabilities, SessionKind, SessionOptions
from leptond.errors import InvalidRequest, RequestTooLarge, UnsupportedCapability
from leptond.scheduler.options import SchedulerOptions
from leptond.scheduler.policy import StepLimits
from leptond.types import GenerationRequest, ScoringRequest

__all__ = ["ModelLimits", "RequestLimits"]


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds without a 0 that means something else.

    Attributes:
        name: the model's, for messages.
        max_context_tokens: prompt and answer of one request together.
        max_running: sequences that run at once.
        has_tokenizer: whether tokens can be made into text.
    """

    name: str
    vocab_size: int
    max_context_tokens: int
    max_running: int
    has_tokenizer: bool

    def answer_room(self, num_prompt_tokens: int) -> int:
        """Most tokens of an answer to a prompt of that length; below 1 it is too long."""
        return self.max_context_tokens - num_prompt_tokens

    def check(self, request: GenerationRequest) -> None:
        """Refuse what can never be served.

        Raises:
            RequestTooLarge: no room for one token after the prompt.
            InvalidRequest: an empty prompt, a token the model does not have, max_tokens < 1.
            UnsupportedCapability: stop strings or logprobs without a tokenizer.
        """
        num_prompt_tokens = len(request.prompt_ids)
        if num_prompt_tokens == 0:
            raise InvalidRequest("the prompt has no tokens", field="prompt")
        if self.answer_room(num_prompt_tokens) < 1:
            raise RequestTooLarge(
                f"the prompt has {num_prompt_tokens} tokens; with at least one token of answer "
                f"model {self.name} takes {self.max_context_tokens}",
                field="prompt",
            )
        if min(request.prompt_ids) < 0 or max(request.prompt_ids) >= self.vocab_size:
            raise InvalidRequest(
                f"the prompt has a token id outside 0 to {self.vocab_size - 1}", field="prompt"
            )
        if request.stop.max_tokens < 1:
            raise InvalidRequest("max_tokens must be at least 1", field="max_tokens")
        if not self.has_tokenizer:
            self._require_no_text(request)

    def check_scoring(self, request: ScoringRequest) -> None:
        """Refuse what can never be scored.

        Raises:
            RequestTooLarge: context and target do not fit.
            InvalidRequest: one of them is empty, or has a token that the model lacks.
        """
        for field, ids in (("context", request.context_ids), ("target", request.target_ids)):
            if not ids:
                raise InvalidRequest(f"the {field} has no tokens", field=field)
            if min(ids) < 0 or max(ids) >= self.vocab_size:
                msg = f"the {field} has a token id outside 0 to {self.vocab_size - 1}"
                raise InvalidRequest(msg, field=field)
        num_tokens = len(request.context_ids) + len(request.target_ids)
        if num_tokens > self.max_context_tokens:
            raise RequestTooLarge(
                f"context and target have {num_tokens} tokens; model {self.name} takes "
                f"{self.max_context_tokens}",
                field="target",
            )

    def _require_no_text(self, request: GenerationRequest) -> None:
        for field, is_used in (
            ("stop_strings", bool(request.stop.stop_strings)),
            ("logprobs", request.num_top_logprobs is not None),
        ):
            if is_used:
                raise UnsupportedCapability(
                    f"model {self.name} has no tokenizer, which {field} needs", field=field
                )


@dataclass(frozen=True, slots=True)
class ModelLimits(RequestLimits):
    """Bounds of a model with an open decode loop.

    Attributes:
        step: of one step.
    """

    step: StepLimits

    @classmethod
    def resolve(
        cls,
        name: str,
        capabilities: Capabilities,
        session: SessionOptions,
        options: SchedulerOptions,
        *,
        has_tokenizer: bool,
    ) -> ModelLimits:
        """Put into one what all sides allow.

        Raises:
            UnsupportedCapability: the model answers whole calls only.
        """
        if capabilities.kind is not SessionKind.STEP:
            raise UnsupportedCapability(f"model {name} has no open decode loop")
        max_kv_tokens = options.max_kv_tokens or session.num_slots * session.max_tokens
        return cls(
            name=name,
            vocab_size=capabilities.vocab_size,
            max_context_tokens=min(
                capabilities.max_context_tokens, session.max_tokens, max_kv_tokens
            ),
            max_running=min(
                options.max_running or session.num_slots,
                session.num_slots,
                capabilities.max_slots,
                options.step_token_budget,
            ),
            has_tokenizer=has_tokenizer,
            step=StepLimits(
                step_token_budget=options.step_token_budget,
                prefill_chunk_tokens=options.prefill_chunk_tokens,
                ride_along_tokens=options.ride_along_tokens
                or max(1, capabilities.ride_along_tokens),
                max_kv_tokens=max_kv_tokens,
            ),
        )
