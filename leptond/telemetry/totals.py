"""The inferences of one call, summed up for its log line, in constant memory."""

from __future__ import annotations

from leptond.telemetry.record import InferenceRecord

__all__ = ["InferenceTotals", "to_ms"]


class InferenceTotals:
    """Models, tokens, finish reasons and time per phase of a call's inferences."""

    __slots__ = (
        "_cached_tokens",
        "_completion_tokens",
        "_durations_s",
        "_finish_reasons",
        "_has_usage",
        "_models",
        "_num_inferences",
        "_prompt_tokens",
    )

    def __init__(self) -> None:
        self._num_inferences = 0
        self._models: set[str] = set()
        self._finish_reasons: dict[str, None] = {}  # a set that keeps the order
        self._durations_s: dict[str, float] = {}
        self._has_usage = False
        self._prompt_tokens = self._cached_tokens = self._completion_tokens = 0

    def add(self, record: InferenceRecord) -> None:
        """Add one inference."""
        self._num_inferences += 1
        self._models.add(record.model)
        self._finish_reasons.update(dict.fromkeys(record.finish_reasons))
        for phase in record.phases:
            spent = self._durations_s.get(phase.name, 0.0)
            self._durations_s[phase.name] = spent + phase.duration_s
        if usage := record.usage:
            self._has_usage = True
            self._prompt_tokens += usage.prompt_tokens
            self._cached_tokens += usage.cached_tokens
            self._completion_tokens += usage.completion_tokens

    def describe(self) -> dict[str, object]:
        """Return the members of the log line; empty without an inference."""
        if not self._num_inferences:
            return {}
        members: dict[str, object] = {"model": ",".join(sorted(self._models))}
        if self._num_inferences > 1:
            members["num_inferences"] = self._num_inferences
        if self._has_usage:
            members["prompt_tokens"] = self._prompt_tokens
            members["cached_tokens"] = self._cached_tokens
            members["completion_tokens"] = self._completion_tokens
        if self._finish_reasons:
            members["finish_reason"] = ",".join(self._finish_reasons)
        for name, duration_s in self._durations_s.items():
            members[f"{name}_ms"] = to_ms(duration_s)
        return members


def to_ms(seconds: float) -> float:
    """Seconds as milliseconds with two decimals, which is what a reader can use."""
    return round(seconds * 1_000, 2)
