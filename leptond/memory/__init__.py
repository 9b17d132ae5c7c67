"""Bytes: the budget that all models share, and regions whose pages come and go."""

from __future__ import annotations

from leptond.memory.budget import MemoryBudget, MemoryReport, Reservation
from leptond.memory.region import PAGE_BYTES, MappedRegion, round_up_to_page

__all__ = [
    "PAGE_BYTES",
    "MappedRegion",
    "MemoryBudget",
    "MemoryReport",
    "Reservation",
    "round_up_to_page",
]
