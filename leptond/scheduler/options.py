"""How one model's scheduler queues requests and fills its steps."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

__all__ = ["SchedulerOptions"]

_AT_LEAST_ONE = frozenset({"step_token_budget", "prefill_chunk_tokens", "batch_token_budget"})


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """Bounds of queue and step.

    Attributes:
        max_running: requests that hold a slot at once; 0 is every slot of the session.
        max_queued: requests that may wait besides those that could run; 0 lets none wait.
        step_token_budget: most new tokens of one step, prompts and decode rows together. More
            prefills faster; less keeps the memory of a run small.
        prefill_chunk_tokens: most prompt tokens of a step in which running texts also get their
            next token: it bounds how long a prompt makes them stall.
        ride_along_tokens: rows share an engine run when their lengths differ by less than this;
            0 takes what the model declares.
        max_kv_tokens: most tokens in all slots together; 0 is what the session has room for.
        batch_token_budget: most tokens of one run of a model that answers in whole calls, padding
            included; a longer input runs alone. More is faster until the run leaves the caches;
            less lets urgent inputs in sooner.
        patience_s: a request without a deadline is ordered as if it had to start in so many
            seconds, one with a later deadline too.
        priority_step_s: seconds of waiting that one level of priority is worth.
        max_priority: priorities count at most this much, up and down, which bounds how far one
            request can be overtaken: by those that come `patience_s` and the difference of
            priority times `priority_step_s` later, and by no others.
    """

    max_running: int = 0
    max_queued: int = 256
    step_token_budget: int = 512
    prefill_chunk_tokens: int = 256
    ride_along_tokens: int = 0
    max_kv_tokens: int = 0
    batch_token_budget: int = 4096
    patience_s: float = 60.0
    priority_step_s: float = 10.0
    max_priority: int = 10

    def __post_init__(self) -> None:
        """Refuse values that no scheduler can work with.

        Raises:
            ValueError: names the field and its range.
        """
        for field in fields(self):
            least = 1 if field.name in _AT_LEAST_ONE else 0
            value = getattr(self, field.name)
            if value < least:
                raise ValueError(f"{field.name} is {value!r}; it must be at least {least}")
        if self.max_running > self.step_token_budget:
            raise ValueError(
                f"max_running is {self.max_running}; it must be at most step_token_budget "
                f"({self.step_token_budget}), so that a step has a token for every running text"
            )

    def with_kv_tokens(self, max_kv_tokens: int) -> SchedulerOptions:
        """The same for a session whose memory holds `max_kv_tokens`, a configured bound kept."""
        configured = self.max_kv_tokens or max_kv_tokens
        return replace(self, max_kv_tokens=min(configured, max_kv_tokens))
