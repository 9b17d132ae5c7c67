"""What the worker has measured of its own pace, and what that says of the near future.

The worker records; whoever admits requests asks. Thread: one writer, any readers: every figure is
one attribute, written whole.

What was not measured yet counts as taking no time: nothing is refused on a guess.
"""

from __future__ import annotations

import math

__all__ = ["PaceEstimate", "RateMeter"]

_WEIGHT = 0.2
"""Of a new measurement in the moving averages: about the last ten count."""

_LEAST_PROMPT_TOKENS = 32
"""Shorter prompt pieces say nothing of prefill speed: a run's fixed cost is most of their time."""

_UNKNOWN_RETRY_S = 1.0
_RETRY_RANGE_S = (0.05, 30.0)


class PaceEstimate:
    """Moving averages of steps and requests."""

    __slots__ = ("_held_s", "_prompt_token_s", "_step_s")

    def __init__(self) -> None:
        self._prompt_token_s = 0.0
        self._step_s = 0.0
        self._held_s = 0.0

    def record_run(self, num_prompt_tokens: int, num_singles: int, duration_s: float) -> None:
        """Take in one engine run: its prompt tokens, its one-token rows, its time.

        What a run of one-token rows takes is not put down to the prompts that ride along.
        """
        if num_prompt_tokens >= _LEAST_PROMPT_TOKENS:
            prompts_s = max(0.0, duration_s - self._step_s) if num_singles else duration_s
            self._prompt_token_s = _mix(self._prompt_token_s, prompts_s / num_prompt_tokens)
        elif num_singles:
            self._step_s = _mix(self._step_s, duration_s)

    def record_release(self, held_s: float) -> None:
        """Take in for how long a request that ended held its slot."""
        self._held_s = _mix(self._held_s, held_s)

    @property
    def token_s(self) -> float:
        """Seconds that one token of a prompt, or of an input, takes in a run; 0 is not known."""
        return self._prompt_token_s

    def prefill_s(self, num_tokens: int, *, step_tokens: int, is_shared: bool) -> float:
        """Time to prefill so many prompt tokens, `step_tokens` of them in a step.

        `is_shared`: running texts get their next token in each of those steps.
        """
        steps_s = math.ceil(num_tokens / step_tokens) * self._step_s if is_shared else 0.0
        return num_tokens * self._prompt_token_s + steps_s

    def slots_s(self, num_releases: int, num_slots: int) -> float:
        """Time until so many of the running requests have given their slots back."""
        return max(0, num_releases) * self._held_s / num_slots

    def retry_after_s(self, num_slots: int) -> float:
        """When a request that found the queue full may try again: one more slot is free."""
        if self._held_s == 0.0:
            return _UNKNOWN_RETRY_S
        least_s, most_s = _RETRY_RANGE_S
        return min(max(self.slots_s(1, num_slots), least_s), most_s)


def _mix(average: float, measured: float) -> float:
    return measured if average == 0.0 else average + _WEIGHT * (measured - average)


class RateMeter:
    """Events per second over the last `window_s` seconds, counted in buckets of a second."""

    def __init__(self, window_s: int = 5) -> None:
        self._window_s = window_s
        self._counts = [0] * (window_s + 1)
        self._seconds = [-1] * (window_s + 1)

    def add(self, count: int, now: float) -> None:
        """Count events at `now`. Thread: one."""
        second = int(now)
        bucket = second % len(self._counts)
        if self._seconds[bucket] == second:
            self._counts[bucket] += count
        else:
            self._counts[bucket] = count
            self._seconds[bucket] = second

    def per_second(self, now: float) -> float:
        """The rate over `window_s` whole seconds and what has passed of this one. Thread: any."""
        oldest = int(now) - self._window_s
        recent = zip(self._counts, self._seconds, strict=True)
        return sum(count for count, second in recent if second >= oldest) / (now - oldest)
