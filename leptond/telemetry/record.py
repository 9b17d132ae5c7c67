"""What the server tells telemetry about one inference; facts only, never a prompt or an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from leptond.types import Phase, PhaseName, SamplingParams, Usage

__all__ = [
    "CHAT", "CLASSIFY", "EMBEDDINGS", "RERANK", "SCORE", "TEXT_COMPLETION", "TRANSLATE",
    "InferenceRecord",
]  # fmt: skip

# Values of `gen_ai.operation.name` (OpenTelemetry GenAI conventions).
CHAT: Final = "chat"
TEXT_COMPLETION: Final = "text_completion"
EMBEDDINGS: Final = "embeddings"
# Not in the conventions, in their style.
TRANSLATE: Final = "translate"
CLASSIFY: Final = "classify"
RERANK: Final = "rerank"
SCORE: Final = "score"


@dataclass(frozen=True, slots=True)
class InferenceRecord:
    """One inference that ended, well or not. Built once per inference, on the event loop.

    Attributes:
        operation: `gen_ai.operation.name`, such as `CHAT`; a constant, never a caller's text.
        model: the name as the registry resolved it, never as a caller wrote it: it labels metrics.
        phases: consecutive, in order, at least one; the first starts and the last ends the
            inference. `DELIVER` runs from the last token to the last write.
        usage: None when it failed before it knew.
        finish_reasons: one per choice.
        error: stable reason of a failure (`leptond.errors.ErrorCode`); None when it went well.
    """

    operation: str
    model: str
    phases: tuple[Phase, ...]
    usage: Usage | None = None
    finish_reasons: tuple[str, ...] = ()
    sampling: SamplingParams | None = None
    max_tokens: int | None = None
    num_choices: int = 1
    is_stream: bool = False
    error: str | None = None

    @property
    def start(self) -> float:
        """Monotonic seconds at which the first phase began."""
        return self.phases[0].start

    @property
    def end(self) -> float:
        """Monotonic seconds at which the last phase ended."""
        return self.phases[-1].end

    @property
    def time_to_first_token_s(self) -> float | None:
        """From the start to the end of the first prefill; None when no token was sampled."""
        first = self._first_token
        return None if first is None else first - self.start

    @property
    def time_per_output_token_s(self) -> float | None:
        """Mean time of the tokens after the first; None when there are none."""
        first = self._first_token
        last = max((p.end for p in self.phases if p.name is PhaseName.DECODE), default=None)
        if first is None or last is None or self.usage is None:
            return None
        num_further = self.usage.completion_tokens - 1
        return (last - first) / num_further if num_further > 0 else None

    @property
    def _first_token(self) -> float | None:
        if self.usage is None or self.usage.completion_tokens < 1:
            return None
        return next((p.end for p in self.phases if p.name is PhaseName.PREFILL), None)
