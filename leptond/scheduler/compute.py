"""The cores of the machine, lent to one engine call after another.

Every worker takes a lease around each engine call, so that two models on two cores take turns
instead of running four threads on them.

I1  The cores of all leases never exceed the budget.
I2  A lease that fits is granted to the waiter that is due first; nobody overtakes it, so a worker
    that gives its lease back and asks again at once comes after those that wait.
I3  One owner holds at most one lease.
I4  A lease that gives way is held by others in between, if any waited, and held again after.

A waiter is due at the time it asked less `priority_step_s` for each level of its priority: higher
priorities go first, and whoever waits long enough goes before them.

Thread: any; one lock, held for a few comparisons.
"""

from __future__ import annotations

import bisect
import math
import threading
from dataclasses import dataclass
from types import TracebackType

from leptond.errors import InvariantViolation
from leptond.scheduler.clock import MONOTONIC, Clock

__all__ = ["ComputeBudget", "ComputeLease"]

_RECENT_S = 0.25
"""Whoever has given a lease back since then uses the cores now: between two steps of a text pass
milliseconds, and whoever paused for longer does not feel one long run of another."""

_TURN_WEIGHT = 0.2
"""Of a new turn in the moving average: about the last ten count."""


class ComputeLease:
    """The right to compute, for the length of a `with` block. Made by `ComputeBudget.lease`."""

    __slots__ = ("_budget", "due", "granted", "num_cores", "owner", "priority")

    def __init__(
        self, budget: ComputeBudget, owner: str, priority: int, due: float, num_cores: int
    ) -> None:
        self._budget = budget
        self.owner = owner
        self.priority = priority
        self.due = due
        self.granted = 0.0
        self.num_cores = num_cores

    def give_way(self) -> None:
        """Inside the block: let those go first that wait now, and come back.

        For calls that last: between two tokens, where the engine computes nothing. Free when
        nobody waits; else blocks until it is this lease's turn again, behind those that are due
        before a lease asked for now.
        """
        self._budget._give_way(self)

    def __enter__(self) -> ComputeLease:
        self._budget._acquire(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._budget._release(self)


@dataclass(frozen=True, slots=True)
class _Turns:
    """How long one worker holds its leases, on average, and when it last gave one back."""

    held_s: float
    ended: float


@dataclass(frozen=True, slots=True)
class _Waiter:
    lease: ComputeLease
    granted: threading.Event


class ComputeBudget:
    """Cores that engine calls share.

    Args:
        num_cores: cores to lend, at least 1.
        priority_step_s: seconds of waiting that one level of priority is worth.
    """

    def __init__(
        self, num_cores: int, *, clock: Clock = MONOTONIC, priority_step_s: float = 0.1
    ) -> None:
        if num_cores < 1:
            raise ValueError(f"num_cores is {num_cores}; it must be at least 1")
        self._num_cores = num_cores
        self._clock = clock
        self._priority_step_s = priority_step_s
        self._lock = threading.Lock()
        self._num_free = num_cores
        self._held: dict[str, ComputeLease] = {}
        self._waiting: list[_Waiter] = []  # in the order of their leases' due
        self._turns: dict[str, _Turns] = {}

    @property
    def num_cores(self) -> int:
        """Cores to lend."""
        return self._num_cores

    @property
    def num_waiting(self) -> int:
        """Workers that wait for a lease at this moment."""
        return len(self._waiting)

    def lease(self, owner: str, priority: int = 0, *, num_cores: int = 0) -> ComputeLease:
        """A lease to enter with `with`; entering blocks until it is granted.

        Args:
            owner: the worker's name.
            priority: of the most urgent request in the call; higher first.
            num_cores: cores that the call keeps busy; 0 is all of them.

        Raises:
            InvariantViolation: on entering, when `owner` holds or awaits a lease already.
        """
        num_cores = min(num_cores, self._num_cores) or self._num_cores
        return ComputeLease(self, owner, priority, self._due_now(priority), num_cores)

    def turn_of_others_s(self, owner: str) -> float:
        """How long another worker's turn takes that uses the cores now; infinity when none does.

        The shortest counts: whoever takes as long himself holds nobody up for more than twice its
        own time. Thread: any.
        """
        recent = self._clock.monotonic() - _RECENT_S
        turns = list(self._turns.items())
        return min(
            (turn.held_s for name, turn in turns if name != owner and turn.ended >= recent),
            default=math.inf,
        )

    def check_integrity(self) -> None:
        """Raise `InvariantViolation` when the books do not add up."""
        with self._lock:
            num_lent = sum(lease.num_cores for lease in self._held.values())
            if num_lent + self._num_free != self._num_cores or self._num_free < 0:
                raise InvariantViolation(
                    f"{num_lent} cores lent and {self._num_free} free of {self._num_cores}"
                )
            if self._waiting and self._waiting[0].lease.num_cores <= self._num_free:
                raise InvariantViolation("a lease waits although its cores are free")

    def _acquire(self, lease: ComputeLease) -> None:
        with self._lock:
            owners = {waiter.lease.owner for waiter in self._waiting}
            if lease.owner in self._held or lease.owner in owners:
                raise InvariantViolation(f"{lease.owner} takes a second compute lease")
            if not self._waiting and lease.num_cores <= self._num_free:
                self._lend(lease)
                return
            waiter = _Waiter(lease, threading.Event())
            bisect.insort_right(self._waiting, waiter, key=lambda other: other.lease.due)
            self._grant_in_order()  # it may be due before one that waits for more cores
        waiter.granted.wait()

    def _give_way(self, lease: ComputeLease) -> None:
        if self._waiting:
            self._release(lease)
            lease.due = self._due_now(lease.priority)
            self._acquire(lease)

    def _due_now(self, priority: int) -> float:
        return self._clock.monotonic() - priority * self._priority_step_s

    def _release(self, lease: ComputeLease) -> None:
        now = self._clock.monotonic()
        with self._lock:
            del self._held[lease.owner]
            self._num_free += lease.num_cores
            before = self._turns.get(lease.owner)
            held_s = now - lease.granted
            if before is not None:
                held_s = before.held_s + _TURN_WEIGHT * (held_s - before.held_s)
            self._turns[lease.owner] = _Turns(held_s, now)
            self._grant_in_order()

    def _grant_in_order(self) -> None:
        while self._waiting and self._waiting[0].lease.num_cores <= self._num_free:
            waiter = self._waiting.pop(0)
            self._lend(waiter.lease)
            waiter.granted.set()

    def _lend(self, lease: ComputeLease) -> None:
        lease.granted = self._clock.monotonic()
        self._num_free -= lease.num_cores
        self._held[lease.owner] = lease
