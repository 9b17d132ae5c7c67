"""What one step does: a pure function of what runs and what waits.

`plan` looks at a snapshot and changes nothing; equal snapshots give equal plans. Called by
`worker` before each step.

I1  Every running row that is not paused and has one pending token gets it in every step, unless it
    is preempted: prompts never keep a text waiting longer than `prefill_chunk_tokens` take.
I2  The new tokens of a step are at most `step_token_budget`; with the tokens in the slots they are
    at most `max_kv_tokens`.
I3  Prompts go on in the order in which they are due, what runs before what waits; the first of them
    gets at least one token unless memory is short.
I4  Memory that is short for the next step is taken from paused rows, then from the row that is due
    last. The row due first is never taken, so it ends, and then the next.
I5  Rows of one run differ in length by less than `ride_along_tokens`: attention pads them to the
    longest. One-token rows are in the first run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from leptond.errors import InvariantViolation

__all__ = ["PlannedRow", "Run", "Snapshot", "StepLimits", "StepPlan", "plan"]

GROWTH_TOKENS = 16
"""Tokens that each running row is left room for when one more is admitted. Without such a reserve a
preempted row would come back at once and be preempted again at the next step."""


class PlannedRow(Protocol):
    """What the planner reads of a sequence."""

    @property
    def due(self) -> float:
        """Place in the order; less is more urgent."""
        ...

    @property
    def num_tokens(self) -> int:
        """Tokens known, prompt and sampled."""
        ...

    @property
    def num_computed(self) -> int:
        """Of those, in the slot."""
        ...

    @property
    def num_pending(self) -> int:
        """The rest: at least 1."""
        ...

    @property
    def is_paused(self) -> bool:
        """Whether its reader is too far behind to be given more."""
        ...


RowT = TypeVar("RowT", bound=PlannedRow)

Run = tuple[tuple[RowT, int], ...]
"""Rows of one `session.step`, each with its number of new tokens."""


@dataclass(frozen=True, slots=True)
class StepLimits:
    """The bounds of a step, see `SchedulerOptions`; none is 0."""

    step_token_budget: int
    prefill_chunk_tokens: int
    ride_along_tokens: int
    max_kv_tokens: int


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[RowT]):
    """All that a plan depends on.

    Attributes:
        running: rows that hold a slot, in the order in which they got it.
        waiting: rows that would get a slot next, in that order; no more than free slots count.
        num_free_slots: slots that may be opened.
        kv_tokens: tokens in all slots.
    """

    running: Sequence[RowT]
    waiting: Sequence[RowT]
    num_free_slots: int
    kv_tokens: int
    limits: StepLimits


@dataclass(frozen=True, slots=True)
class StepPlan(Generic[RowT]):
    """What to do, in this order.

    Attributes:
        preempted: rows whose slots are closed; they wait again.
        admitted: rows that get a slot; each is in a run.
        runs: calls of `session.step`.
    """

    preempted: tuple[RowT, ...]
    admitted: tuple[RowT, ...]
    runs: tuple[Run[RowT], ...]


def plan(snapshot: Snapshot[RowT]) -> StepPlan[RowT]:
    """Decide the next step. Raises `InvariantViolation` when one row alone exceeds the memory."""
    limits = snapshot.limits
    singles, prompts = _split(snapshot.running)
    room = limits.max_kv_tokens - snapshot.kv_tokens
    if not prompts and not snapshot.waiting and room >= len(singles):
        run = tuple((row, 1) for row in singles)
        return StepPlan((), (), (run,) if run else ())

    running, preempted, room = _fit(snapshot.running, room)
    if preempted:
        singles, prompts = _split(running)
    budget = limits.step_token_budget - len(singles)
    if singles:
        budget = min(budget, limits.prefill_chunk_tokens)
    filling: _Filling[RowT] = _Filling(
        budget=min(budget, room - len(singles)),
        least_piece=1 if singles else limits.ride_along_tokens,
    )
    for row in sorted(prompts, key=lambda row: row.due):
        if not filling.take(row):
            break
    admitted = _admit(snapshot, filling)
    rows = [(row, 1) for row in singles] + filling.chunks
    return StepPlan(preempted, admitted, _pack(rows, limits.ride_along_tokens))


class _Filling(Generic[RowT]):
    """Prompt chunks of one step, as they are chosen."""

    def __init__(self, *, budget: int, least_piece: int) -> None:
        self.chunks: list[tuple[RowT, int]] = []
        self._budget = budget
        self._least_piece = least_piece

    def take(self, row: RowT) -> bool:
        """Give the row as much as is left of the budget; False when that is not worth it.

        A short piece of a longer prompt would need an engine run of its own, which reads all
        weights for it; with one-token rows in the step it rides along.
        """
        num_tokens = min(row.num_pending, self._budget)
        is_cut = num_tokens < row.num_pending
        if num_tokens < 1 or (self.chunks and is_cut and num_tokens < self._least_piece):
            return False
        self.chunks.append((row, num_tokens))
        self._budget -= num_tokens
        return True


def _split(rows: Iterable[RowT]) -> tuple[list[RowT], list[RowT]]:
    """Rows with one pending token and rows with more, the paused left out."""
    singles: list[RowT] = []
    prompts: list[RowT] = []
    for row in rows:
        if not row.is_paused:
            (singles if row.num_pending == 1 else prompts).append(row)
    return singles, prompts


def _fit(rows: Sequence[RowT], room: int) -> tuple[list[RowT], tuple[RowT, ...], int]:
    """Take slots away until the rest can go on: rows kept, rows preempted, room in tokens."""
    kept = list(rows)
    preempted: list[RowT] = []
    while True:
        singles, prompts = _split(kept)
        if room >= (len(singles) or min(1, len(prompts))):
            return kept, tuple(preempted), room
        if len(kept) == 1:
            raise InvariantViolation("one text alone exceeds the room for keys and values")
        # The last of equals, so that what runs longest stays.
        last = max(range(len(kept)), key=lambda i: (kept[i].is_paused, kept[i].due, i))
        victim = kept.pop(last)
        preempted.append(victim)
        room += victim.num_computed


def _admit(snapshot: Snapshot[RowT], filling: _Filling[RowT]) -> tuple[RowT, ...]:
    """Choose what gets a slot: as long as its whole prompt fits and a piece of it runs now.

    Preempted rows still count as running, so nothing is admitted in the step that preempts.
    """
    admitted: list[RowT] = []
    num_running = len(snapshot.running)
    committed = sum(row.num_tokens for row in snapshot.running)
    for row in snapshot.waiting[: snapshot.num_free_slots]:
        num_rows = num_running + len(admitted) + 1
        needed = committed + row.num_tokens + num_rows * GROWTH_TOKENS
        if num_rows > 1 and needed > snapshot.limits.max_kv_tokens:
            break
        if not filling.take(row):
            break
        admitted.append(row)
        committed += row.num_tokens
    return tuple(admitted)


def _pack(rows: list[tuple[RowT, int]], ride_along_tokens: int) -> tuple[Run[RowT], ...]:
    """Group rows of about equal length into runs, the shortest first."""
    runs: list[list[tuple[RowT, int]]] = []
    shortest = 0
    for row, num_tokens in sorted(rows, key=lambda planned: planned[1]):
        if not runs or num_tokens - shortest >= ride_along_tokens:
            runs.append([])
            shortest = num_tokens
        runs[-1].append((row, num_tokens))
    return tuple(tuple(run) for run in runs)
