"""One request on its way: its tokens, its slot, its phases.

Made by `admission` on the caller's thread; from then on the worker's alone, except `sink`'s
reader side.

    waiting ──slot──▶ running ──end──▶ gone
       ▲                 │
       └───preempted─────┘

A sequence is a list of known tokens, of which the first `num_computed` are in its slot. Whatever is
known and not computed is pending: a prompt, the token just sampled, a preempted text to compute
again. Drafts will be pending tokens too.
"""

from __future__ import annotations

import math

from leptond.scheduler.answer import AnswerScorer, AnswerWriter
from leptond.scheduler.tenant import TenantAccount
from leptond.streaming import ResponseSink
from leptond.types import (
    FinishReason,
    GenerationRequest,
    GenerationSummary,
    Phase,
    PhaseName,
    RequestProgress,
    ScoringRequest,
    TokenChunk,
    Usage,
)

__all__ = ["Sequence"]


class Sequence:
    """A request that was admitted.

    Args:
        arrival: when it was submitted, monotonic seconds.
        due: its place in the order of its tenant, see `leptond.scheduler.queue`.
        priority: the request's own, bounded.
        max_tokens: most tokens to sample, cut to the context.

    Attributes:
        account: its tenant's; set when the queue takes it in.
        answer: what writes its text, or scores the one given; set with its first slot.
        token_ids: prompt and sampled tokens.
        num_computed: how many of them the slot holds; 0 without a slot.
        slot: the session's handle; None while it waits.
        slot_since: when it got the slot.
        phase: the phase that is open.
        is_paused: its reader was far behind when the step was planned.
    """

    __slots__ = (
        "_is_over",
        "_phase_start",
        "_phases",
        "account",
        "answer",
        "arrival",
        "deadline",
        "due",
        "is_paused",
        "max_tokens",
        "num_computed",
        "phase",
        "priority",
        "request",
        "sink",
        "slot",
        "slot_since",
        "token_ids",
    )

    account: TenantAccount

    def __init__(
        self,
        request: GenerationRequest | ScoringRequest,
        sink: ResponseSink[TokenChunk, GenerationSummary],
        *,
        arrival: float,
        due: float,
        priority: int,
        max_tokens: int,
    ) -> None:
        self.request = request
        self.sink = sink
        self.arrival = arrival
        self.due = due
        self.priority = priority
        self.deadline = math.inf if request.deadline is None else request.deadline
        self.max_tokens = max_tokens
        self.answer: AnswerWriter | AnswerScorer | None = None
        self.token_ids: list[int] = list(request.prompt_ids)
        self.num_computed = 0
        self.slot: int | None = None
        self.slot_since = arrival
        self.is_paused = False
        self._phases: list[Phase] = []
        self._is_over = False
        self.phase = PhaseName.QUEUE
        self._phase_start = arrival

    @property
    def id(self) -> str:
        """The request's own."""
        return self.request.id

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.request.tenant

    @property
    def may_wait(self) -> bool:
        """Whether it may be found in the queue: it holds no slot."""
        return self.slot is None

    @property
    def num_tokens(self) -> int:
        """Known tokens."""
        return len(self.token_ids)

    @property
    def num_pending(self) -> int:
        """Known tokens that the slot does not hold yet."""
        return len(self.token_ids) - self.num_computed

    @property
    def num_sampled(self) -> int:
        """Tokens of the answer so far; each went out in a chunk."""
        return len(self.token_ids) - len(self.request.prompt_ids)

    @property
    def is_ready(self) -> bool:
        """Whether a slot would be of use: a preempted text may have a reader that is far behind."""
        return self.num_sampled == 0 or self.sink.has_room

    def enter(self, phase: PhaseName, now: float) -> None:
        """End the phase that is open, and begin `phase`."""
        self._phases.append(Phase(self.phase, self._phase_start, now))
        self.phase = phase
        self._phase_start = now

    def progress(self, now: float) -> RequestProgress:
        """How far it is. Thread: any; what it says may mix two neighbouring moments."""
        phases = tuple(self._phases)
        if not self._is_over:
            phases = (*phases, Phase(self.phase, self._phase_start, now))
        return RequestProgress(phases, Usage(len(self.request.prompt_ids), self.num_sampled))

    def summarize(
        self, reason: FinishReason, now: float, matched_stop: str | int | None = None
    ) -> GenerationSummary:
        """End the last phase at `now` and say how it all went. Call it once."""
        self._phases.append(Phase(self.phase, self._phase_start, now))
        self._is_over = True
        usage = Usage(len(self.request.prompt_ids), self.num_sampled)
        return GenerationSummary(reason, usage, tuple(self._phases), matched_stop)
