"""The KV arena: one piece of memory for keys and values of every slot at full length.

    [layer][key | value][slot][kv_head][max_len][head_dim]

A range of slots is contiguous in each [layer][key | value], so a run binds it as past and present
by address, and attention writes in place. In host memory only pages that were written are
resident, and a closed slot gives its pages back: the MMU is the page table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from leptond.memory import PAGE_BYTES, MappedRegion

__all__ = ["ArenaLayout", "HostArena", "KvArena"]


@dataclass(frozen=True, slots=True)
class ArenaLayout:
    """Sizes of an arena. A slab is what one slot holds of one layer's keys, or values.

    Attributes:
        max_len: token positions of a slot; see `fitted`.
    """

    num_layers: int
    num_slots: int
    num_kv_heads: int
    max_len: int
    head_dim: int
    dtype: np.dtype[Any]

    @classmethod
    def fitted(
        cls,
        *,
        num_layers: int,
        num_slots: int,
        num_kv_heads: int,
        min_len: int,
        head_dim: int,
        dtype: np.dtype[Any],
    ) -> ArenaLayout:
        """The smallest layout of at least `min_len` positions whose slabs are whole pages."""
        position_bytes = num_kv_heads * head_dim * dtype.itemsize
        step = PAGE_BYTES // math.gcd(PAGE_BYTES, position_bytes)
        max_len = -(-min_len // step) * step
        return cls(num_layers, num_slots, num_kv_heads, max_len, head_dim, dtype)

    @property
    def num_slabs(self) -> int:
        """Slabs of one slot: keys and values of each layer."""
        return 2 * self.num_layers

    @property
    def token_bytes(self) -> int:
        """Bytes of one token of one head in one slab."""
        return self.head_dim * self.dtype.itemsize

    @property
    def strip_bytes(self) -> int:
        """Bytes of one head's positions in one slab."""
        return self.max_len * self.token_bytes

    @property
    def slab_bytes(self) -> int:
        """Bytes of one slab."""
        return self.num_kv_heads * self.strip_bytes

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole arena."""
        return self.num_slabs * self.num_slots * self.slab_bytes

    def shape(self, num_slots: int) -> tuple[int, int, int, int]:
        """Shape of `num_slots` neighbouring slots in one layer's keys or values."""
        return num_slots, self.num_kv_heads, self.max_len, self.head_dim

    def offset(self, slab: int, slot: int) -> int:
        """Where slab `2 * layer` (keys) or `2 * layer + 1` (values) of `slot` begins, in bytes."""
        return (slab * self.num_slots + slot) * self.slab_bytes


class KvArena(Protocol):
    """Memory of some device, laid out as `layout` says."""

    @property
    def layout(self) -> ArenaLayout:
        """Its sizes."""
        ...

    @property
    def address(self) -> int:
        """Where it begins, in the device's own addresses."""
        ...

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` positions of slot `source` to slot `target`."""
        ...

    def give_back(self, slot: int) -> None:
        """Return the slot's memory to the system, if the device can; its content is lost."""
        ...

    def resident_bytes(self) -> int:
        """Memory that it takes now."""
        ...

    def close(self) -> None:
        """Free everything; idempotent."""
        ...


class HostArena:
    """The arena in this machine's memory."""

    def __init__(self, layout: ArenaLayout) -> None:
        self._layout = layout
        self._region = MappedRegion(layout.num_bytes)

    @property
    def layout(self) -> ArenaLayout:
        """Its sizes."""
        return self._layout

    @property
    def address(self) -> int:
        """Where it begins."""
        return self._region.address

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Copy positions between two slots; touches no more pages than these need."""
        strips = self._strips()
        num_elements = num_tokens * self._layout.head_dim
        strips[:, target, :, :num_elements] = strips[:, source, :, :num_elements]

    def give_back(self, slot: int) -> None:
        """Return the slot's pages to the kernel."""
        for slab in range(self._layout.num_slabs):
            self._region.give_back(self._layout.offset(slab, slot), self._layout.slab_bytes)

    def resident_bytes(self) -> int:
        """Bytes of the pages that are in memory."""
        return 0 if self._region.is_closed else self._region.resident_bytes()

    def close(self) -> None:
        """Give everything back; idempotent."""
        self._region.close()

    def _strips(self) -> npt.NDArray[Any]:
        layout = self._layout
        shape = (
            layout.num_slabs,
            layout.num_slots,
            layout.num_kv_heads,
            layout.max_len * layout.head_dim,
        )
        return self._region.array(shape, layout.dtype)
