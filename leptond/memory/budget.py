"""The one budget of bytes that every model, cache and pool of the daemon draws on.

Nothing is allocated here: a reservation is a promise, made before a load or an arena, so that two
loads at once cannot both find the last gigabyte free. Who must give way is decided above, in
`leptond.models`.

I1  The bytes of all live reservations never exceed the budget.
I2  A reservation is released exactly once; its bytes are back when `release` returns.

Thread: any; one lock, held for a few additions.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from leptond.errors import InvariantViolation, MemoryBudgetExceeded

__all__ = ["MemoryBudget", "MemoryReport", "Reservation"]


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """Where the budget's bytes are, at one moment.

    Attributes:
        limit_bytes: the whole budget.
        reserved_bytes: the sum of the live reservations.
        peak_bytes: the largest `reserved_bytes` so far.
        by_owner: bytes per owner, then per pool; owners that hold nothing are not listed.
    """

    limit_bytes: int
    reserved_bytes: int
    peak_bytes: int
    by_owner: Mapping[str, Mapping[str, int]]

    @property
    def available_bytes(self) -> int:
        """What may still be reserved."""
        return self.limit_bytes - self.reserved_bytes

    @property
    def by_pool(self) -> Mapping[str, int]:
        """Bytes per pool over all owners."""
        total: Counter[str] = Counter()
        for pools in self.by_owner.values():
            total.update(pools)
        return dict(total)


class Reservation:
    """Bytes that one owner holds of the budget, until `release`. Made by `MemoryBudget.reserve`."""

    __slots__ = ("_budget", "_is_released", "_num_bytes", "owner", "pool")

    def __init__(self, budget: MemoryBudget, num_bytes: int, owner: str, pool: str) -> None:
        self._budget = budget
        self._num_bytes = num_bytes
        self._is_released = False
        self.owner = owner
        self.pool = pool

    @property
    def num_bytes(self) -> int:
        """Bytes held; 0 once released."""
        return self._num_bytes

    @property
    def is_released(self) -> bool:
        """Whether `release` was called."""
        return self._is_released

    def resize(self, num_bytes: int) -> None:
        """Hold `num_bytes` instead: an estimate became a fact.

        Raises:
            MemoryBudgetExceeded: there is no room to grow; what is held stays held.
        """
        self._budget._resize(self, num_bytes)

    def release(self) -> None:
        """Give the bytes back. A second call is a bug and raises `InvariantViolation`."""
        self._budget._release(self)

    def __repr__(self) -> str:
        state = "released" if self._is_released else f"{self._num_bytes} bytes"
        return f"<Reservation {self.owner}/{self.pool}: {state}>"


class MemoryBudget:
    """Bytes that may be in use at once.

    Args:
        limit_bytes: the whole budget, at least 0. There is no "unlimited": whoever makes the
            budget knows the machine.
    """

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < 0:
            raise InvariantViolation(f"a budget of {limit_bytes} bytes")
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._live: set[Reservation] = set()
        self._reserved_bytes = 0
        self._peak_bytes = 0

    @property
    def limit_bytes(self) -> int:
        """The whole budget."""
        return self._limit_bytes

    @property
    def reserved_bytes(self) -> int:
        """Bytes of all live reservations."""
        return self._reserved_bytes

    @property
    def available_bytes(self) -> int:
        """What may still be reserved; stale as soon as it is read, so `reserve` and see."""
        return self._limit_bytes - self._reserved_bytes

    def can_reserve(self, num_bytes: int) -> bool:
        """Whether `reserve` would succeed at this moment."""
        return num_bytes <= self.available_bytes

    def reserve(self, num_bytes: int, owner: str, pool: str = "weights") -> Reservation:
        """Take `num_bytes` (0 is allowed) for `owner`, a model's name or a part of the daemon.

        Args:
            num_bytes: how many bytes.
            owner: who answers for them in the report.
            pool: what they are for: `weights`, `kv`, ...

        Raises:
            MemoryBudgetExceeded: fewer are left; its details say how many were asked for and
                how many are free.
        """
        reservation = Reservation(self, 0, owner, pool)
        with self._lock:
            self._hold(reservation, num_bytes)
            self._live.add(reservation)
        return reservation

    def report(self) -> MemoryReport:
        """A consistent picture of all live reservations."""
        by_owner: dict[str, Counter[str]] = {}
        with self._lock:
            for reservation in self._live:
                pools = by_owner.setdefault(reservation.owner, Counter())
                pools[reservation.pool] += reservation.num_bytes
            return MemoryReport(
                limit_bytes=self._limit_bytes,
                reserved_bytes=self._reserved_bytes,
                peak_bytes=self._peak_bytes,
                by_owner={owner: dict(pools) for owner, pools in sorted(by_owner.items())},
            )

    def check_integrity(self) -> None:
        """Add everything up again. Raises `InvariantViolation` when I1 or the sum is broken."""
        with self._lock:
            total = sum(reservation.num_bytes for reservation in self._live)
            if total != self._reserved_bytes:
                raise InvariantViolation(f"{total} bytes are held, {self._reserved_bytes} booked")
            if not 0 <= total <= self._limit_bytes:
                raise InvariantViolation(f"{total} of {self._limit_bytes} bytes are held")
            if any(reservation.is_released for reservation in self._live):
                raise InvariantViolation("a released reservation is still live")

    def _resize(self, reservation: Reservation, num_bytes: int) -> None:
        with self._lock:
            self._require_live(reservation)
            self._hold(reservation, num_bytes)

    def _release(self, reservation: Reservation) -> None:
        with self._lock:
            self._require_live(reservation)
            self._hold(reservation, 0)
            self._live.remove(reservation)
            reservation._is_released = True

    def _require_live(self, reservation: Reservation) -> None:
        if reservation not in self._live:
            raise InvariantViolation(f"{reservation!r} was used after its release")

    def _hold(self, reservation: Reservation, num_bytes: int) -> None:
        """Under the lock: set what `reservation` holds, or raise and change nothing."""
        if num_bytes < 0:
            raise InvariantViolation(f"a reservation of {num_bytes} bytes for {reservation.owner}")
        more = num_bytes - reservation.num_bytes
        if more > self.available_bytes:
            raise MemoryBudgetExceeded(
                f"{reservation.owner} needs {more} more bytes of memory ({reservation.pool}); "
                f"{self.available_bytes} of {self._limit_bytes} are free",
                details={"needed_bytes": str(more), "available_bytes": str(self.available_bytes)},
            )
        reservation._num_bytes = num_bytes
        self._reserved_bytes += more
        self._peak_bytes = max(self._peak_bytes, self._reserved_bytes)
