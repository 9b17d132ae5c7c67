"""The order in which waiting requests get slots: fair between tenants, urgent first within one.

Between tenants: whoever has been served the fewest tokens goes first (start-time fair queueing,
Goyal, Vin and Cheng 1996, with equal weights). A tenant that comes back from idleness starts level
with those that are active, so nobody saves up or owes.

Within a tenant: by `due`, a time fixed on arrival: its deadline, or `patience_s` from now when that
is sooner, less `priority_step_s` per level of priority. It never changes, and what arrives later is
due later by as much, so a request is overtaken only by those that arrive within `patience_s` plus
its disadvantage in priority after it: nothing starves.

I1  Every waiting sequence is in exactly one tenant's list, which is sorted by `due`, then arrival.
I2  An account exists while its tenant has a sequence waiting or running.

Thread: not safe by itself; `admission` holds its lock around every call.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right, insort_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from leptond.errors import InvariantViolation
from leptond.scheduler.options import SchedulerOptions
from leptond.scheduler.tenant import TenantAccount

__all__ = ["FairQueue", "Queued", "bounded_priority", "due_time"]


class Queued(Protocol):
    """What waits in the queue: a request on its way.

    Attributes:
        account: its tenant's; set when the queue takes it in.
    """

    account: TenantAccount

    @property
    def id(self) -> str:
        """The request's own, for messages."""
        ...

    @property
    def tenant(self) -> str:
        """Whose it is."""
        ...

    @property
    def due(self) -> float:
        """Its place in the order of its tenant; constant."""
        ...

    @property
    def num_tokens(self) -> int:
        """Tokens that it waits to have computed; constant while it waits."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether its turn would be of use now."""
        ...

    @property
    def may_wait(self) -> bool:
        """Whether it may be found waiting; False is a bug in whoever runs it."""
        ...


QueuedT = TypeVar("QueuedT", bound=Queued)


def bounded_priority(options: SchedulerOptions, priority: int) -> int:
    """Return the priority that counts: what any caller may write cannot starve the others."""
    return max(-options.max_priority, min(options.max_priority, priority))


def due_time(options: SchedulerOptions, now: float, deadline: float, priority: int) -> float:
    """Return when a request that arrives `now` is due; `priority` is bounded."""
    return min(deadline, now + options.patience_s) - priority * options.priority_step_s


def _by_due(sequence: Queued) -> float:
    return sequence.due


def _is_ready(sequence: Queued) -> bool:
    return sequence.is_ready


@dataclass(slots=True, eq=False)
class _Lane(Generic[QueuedT]):
    """One tenant's account, and what it has waiting."""

    account: TenantAccount
    waiting: list[QueuedT] = field(default_factory=list)


class FairQueue(Generic[QueuedT]):
    """Sequences that wait for their turn, by tenant."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane[QueuedT]] = {}
        self._level_tokens = 0  # where a tenant that comes back starts
        self._num_waiting = 0
        self._num_tokens = 0
        self._num_active = 0

    def __len__(self) -> int:
        return self._num_waiting

    def __iter__(self) -> Iterator[QueuedT]:
        for lane in self._lanes.values():
            yield from lane.waiting

    @property
    def num_tokens(self) -> int:
        """Tokens that the waiting sequences have to be computed."""
        return self._num_tokens

    @property
    def num_active(self) -> int:
        """Sequences that entered and did not leave: waiting and running."""
        return self._num_active

    def enter(self, sequence: QueuedT) -> None:
        """Take a new sequence into its tenant's account, and let it wait."""
        tenant = sequence.tenant
        lane = self._lanes.get(tenant)
        if lane is None:
            served = (other.account.served_tokens for other in self._lanes.values())
            self._level_tokens = max(self._level_tokens, min(served, default=0))
            lane = self._lanes[tenant] = _Lane(TenantAccount(tenant, self._level_tokens))
        lane.account.num_active += 1
        self._num_active += 1
        sequence.account = lane.account
        self.wait(sequence)

    def wait(self, sequence: QueuedT) -> None:
        """Let a sequence wait that entered before: it is new, or it lost its slot."""
        insort_right(self._lanes[sequence.tenant].waiting, sequence, key=_by_due)
        self._num_waiting += 1
        self._num_tokens += sequence.num_tokens

    def remove(self, sequence: QueuedT) -> None:
        """End its waiting: it gets a slot, or it is about to leave."""
        self._lanes[sequence.tenant].waiting.remove(sequence)
        self._num_waiting -= 1
        self._num_tokens -= sequence.num_tokens

    def leave(self, sequence: QueuedT) -> None:
        """Forget a sequence that neither waits nor runs any more."""
        account = sequence.account
        account.num_active -= 1
        self._num_active -= 1
        if account.num_active == 0:
            del self._lanes[account.name]
            if not self._lanes:
                self._level_tokens = max(self._level_tokens, account.served_tokens)

    def candidates(self, limit: int) -> list[QueuedT]:
        """The first `limit` sequences in fair order; none is removed.

        Each one named counts as served with its tokens for the choice of the next.
        """
        # A tenant's turn: tokens served, its name (for ties), its next sequence and the rest.
        turns: list[tuple[int, str, QueuedT, Iterator[QueuedT]]] = []
        for tenant, lane in self._lanes.items():
            ready: Iterator[QueuedT] = filter(_is_ready, lane.waiting)
            if (first := next(ready, None)) is not None:
                turns.append((lane.account.served_tokens, tenant, first, ready))
        heapq.heapify(turns)
        chosen: list[QueuedT] = []
        while turns and len(chosen) < limit:
            served_tokens, tenant, sequence, ready = turns[0]
            chosen.append(sequence)
            if (following := next(ready, None)) is None:
                heapq.heappop(turns)
            else:
                served_tokens += sequence.num_tokens
                heapq.heapreplace(turns, (served_tokens, tenant, following, ready))
        return chosen

    def ahead_of(self, tenant: str, due: float, num_tokens: int) -> tuple[int, int]:
        """How many sequences, and how many tokens, would go before a new one of `num_tokens`.

        Its own tenant's that are due before it; of each other tenant at most as much as of its
        own, itself included, since turns are fair.
        """
        lane = self._lanes.get(tenant)
        earlier: list[QueuedT] = []
        if lane is not None:
            earlier = lane.waiting[: bisect_right(lane.waiting, due, key=_by_due)]
        own_tokens = sum(sequence.num_tokens for sequence in earlier)
        num_ahead, num_tokens_ahead = len(earlier), own_tokens
        for other in self._lanes.values():
            if other is not lane:
                waiting_tokens = sum(sequence.num_tokens for sequence in other.waiting)
                num_ahead += min(len(other.waiting), len(earlier) + 1)
                num_tokens_ahead += min(waiting_tokens, own_tokens + num_tokens)
        return num_ahead, num_tokens_ahead

    def check_integrity(self) -> None:
        """Raise `InvariantViolation` when lanes, accounts and counts disagree."""
        waiting = list(self)
        if len(waiting) != self._num_waiting or len(set(map(id, waiting))) != len(waiting):
            raise InvariantViolation(f"{len(waiting)} sequences wait, {self._num_waiting} counted")
        if sum(sequence.num_tokens for sequence in waiting) != self._num_tokens:
            raise InvariantViolation(f"{self._num_tokens} waiting tokens counted")
        if sum(lane.account.num_active for lane in self._lanes.values()) != self._num_active:
            raise InvariantViolation(f"{self._num_active} active sequences counted")
        for tenant, lane in self._lanes.items():
            if lane.account.num_active < max(1, len(lane.waiting)):
                raise InvariantViolation(f"tenant {tenant!r} has lost a sequence")
            if lane.waiting != sorted(lane.waiting, key=_by_due):
                raise InvariantViolation(f"tenant {tenant!r} is out of order")
            for sequence in lane.waiting:
                if sequence.account is not lane.account or not sequence.may_wait:
                    raise InvariantViolation(f"request {sequence.id} should not wait")
