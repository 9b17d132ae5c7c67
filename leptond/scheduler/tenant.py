"""What one tenant has been served: the measure of fairness between tenants."""

from __future__ import annotations

__all__ = ["TenantAccount"]


class TenantAccount:
    """One per tenant with a sequence inside; kept by `leptond.scheduler.queue`.

    Attributes:
        served_tokens: tokens computed for it, on the common scale of all tenants. The worker adds
            to it without a lock: it is the only one that does.
        num_active: its sequences, waiting and running.
    """

    __slots__ = ("name", "num_active", "served_tokens")

    def __init__(self, name: str, served_tokens: int) -> None:
        self.name = name
        self.served_tokens = served_tokens
        self.num_active = 0
