"""Cuts the rows of one step into engine runs: pure functions, no engine.

A run takes a contiguous range of slots. Its linear layers see the new tokens packed into one
vector; its attention sees a row per slot of the range, padded to the longest. Hence:

- rows of up to `ride_along_tokens` go together, whatever their lengths: padding costs less than
  reading the weights once more;
- longer rows go together when they are equally long and neighbours: nothing is padded then;
- no run takes more than `max_run_tokens`: activations grow with its tokens, by 80 KB each for a
  model of 135 million parameters, and the engine keeps that memory.

A row that is longer than a run is cut; its pieces run in order, and a short last piece rides along.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leptond.errors import InvariantViolation

__all__ = ["EngineRun", "Piece", "RunLimits", "StepSlice", "plan_runs"]


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What a run may hold.

    Attributes:
        ride_along_tokens: longest row that runs together with rows of other lengths.
        max_run_tokens: most new tokens of a run.
        max_run_cells: most cells (slots of the range times longest row) of a run that mixes
            lengths; bounds what padding may cost.
    """

    ride_along_tokens: int = 64
    max_run_tokens: int = 512
    max_run_cells: int = 4096

    def __post_init__(self) -> None:
        """Only the last piece of a row may ride along: two of one slot never share a run."""
        if not 1 <= self.ride_along_tokens < self.max_run_tokens:
            raise InvariantViolation(f"run limits {self}")


@dataclass(frozen=True, slots=True, eq=False)
class StepSlice:
    """One row of a step, as the engine sees it.

    Attributes:
        index: physical slot.
        past: tokens that the slot holds already.
        token_ids: new tokens, at least one.
        num_wanted: how many of the last ones are answered.
        first_line: line of the result that answers the first of them.
    """

    index: int
    past: int
    token_ids: Sequence[int]
    num_wanted: int
    first_line: int


Piece = StepSlice
"""A part of a row that goes into one run; the wanted positions are its last ones, too."""


@dataclass(frozen=True, slots=True, eq=False)
class EngineRun:
    """Pieces of different slots, by ascending index, that go through the engine at once."""

    pieces: tuple[Piece, ...]

    @property
    def first_index(self) -> int:
        """First physical slot of the range."""
        return self.pieces[0].index

    @property
    def num_slots(self) -> int:
        """Slots of the range, holes among them."""
        return self.pieces[-1].index - self.pieces[0].index + 1

    @property
    def num_tokens(self) -> int:
        """New tokens."""
        return sum(len(piece.token_ids) for piece in self.pieces)

    @property
    def longest(self) -> int:
        """Most new tokens of one slot."""
        return max(len(piece.token_ids) for piece in self.pieces)

    @property
    def has_no_padding(self) -> bool:
        """Whether its slots are neighbours and equally long."""
        length = len(self.pieces[0].token_ids)
        return all(
            after.index == before.index + 1 and len(after.token_ids) == length
            for before, after in itertools.pairwise(self.pieces)
        )


def plan_runs(rows: Sequence[StepSlice], limits: RunLimits) -> list[EngineRun]:
    """Cut `rows`, of different slots, into runs that are to be made in the order returned."""
    short: list[Piece] = []
    long: list[tuple[int, Piece]] = []
    for row in rows:
        for number, piece in enumerate(_cut(row, limits.max_run_tokens)):
            if len(piece.token_ids) <= limits.ride_along_tokens:
                short.append(piece)
            else:
                long.append((number, piece))
    # Long before short, earlier pieces before later ones: a row's pieces stay in order.
    long.sort(key=lambda item: (item[0], len(item[1].token_ids), item[1].index))
    short.sort(key=lambda piece: piece.index)

    def is_even(run: EngineRun) -> bool:
        return run.has_no_padding and run.num_tokens <= limits.max_run_tokens

    def may_mix(run: EngineRun) -> bool:
        num_cells = run.num_slots * run.longest
        return run.num_tokens <= limits.max_run_tokens and num_cells <= limits.max_run_cells

    return [*_grouped([piece for _, piece in long], is_even), *_grouped(short, may_mix)]


def _cut(row: StepSlice, max_tokens: int) -> list[Piece]:
    """Pieces of at most `max_tokens`, in order."""
    num_tokens = len(row.token_ids)
    if num_tokens <= max_tokens:
        return [row]
    first_wanted = num_tokens - row.num_wanted
    pieces = []
    for start in range(0, num_tokens, max_tokens):
        stop = min(start + max_tokens, num_tokens)
        wanted_from = max(start, first_wanted)
        pieces.append(
            Piece(
                index=row.index,
                past=row.past + start,
                token_ids=row.token_ids[start:stop],
                num_wanted=max(0, stop - wanted_from),
                first_line=row.first_line + wanted_from - first_wanted,
            )
        )
    return pieces


def _grouped(pieces: Sequence[Piece], fits: Callable[[EngineRun], bool]) -> list[EngineRun]:
    """Runs of consecutive `pieces`, each taking the next one for as long as that fits."""
    if not pieces:
        return []
    whole = EngineRun(tuple(pieces))
    if fits(whole):  # a decode step, nearly always
        return [whole]
    runs = [EngineRun((pieces[0],))]
    for piece in pieces[1:]:
        larger = EngineRun((*runs[-1].pieces, piece))
        if fits(larger):
            runs[-1] = larger
        else:
            runs.append(EngineRun((piece,)))
    return runs
