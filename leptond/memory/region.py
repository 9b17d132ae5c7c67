"""A region of memory whose pages are real only once they are written, and can be given back.

The KV arena of a plug-in is one such region: address space for every slot at full length, and
memory for the tokens that exist. The MMU is the page table. Linux only.

I1  A page that was never touched, or was given back, costs nothing and reads as zeros.
I2  `give_back` touches only pages that lie wholly inside its range: neighbours keep their bytes.
I3  No array made from a region ever dangles: the address space lives as long as its last array.

Thread: any, but a range that one thread gives back must not be in use by another.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.errors import InvariantViolation, MemoryBudgetExceeded

__all__ = ["PAGE_BYTES", "MappedRegion", "round_up_to_page"]

PAGE_BYTES = mmap.PAGESIZE
"""Size of a page of this machine, in bytes."""

# <asm-generic/mman-common.h>, the value on x86-64 and AArch64; `mmap` names it from 3.13 on.
_MAP_NORESERVE = 0x4000
_MINCORE_CHUNK_PAGES = 1 << 16  # one byte of answer per page: 64 KiB of scratch at most

# `mmap.madvise` keeps the GIL while pages are freed, for milliseconds; a ctypes call does not.
_LIBC = ctypes.CDLL(None, use_errno=True)
_MADVISE = _LIBC.madvise
_MADVISE.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_MINCORE = _LIBC.mincore
_MINCORE.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


def round_up_to_page(num_bytes: int) -> int:
    """The smallest multiple of `PAGE_BYTES` that is at least `num_bytes`."""
    return -(-num_bytes // PAGE_BYTES) * PAGE_BYTES


class MappedRegion:
    """Anonymous private memory, mapped without a reservation and without huge pages.

    Huge pages would make 2 MiB resident for a few tokens of each head of each layer: hundreds of
    times the memory of a short row.

    Args:
        num_bytes: size, at least 1; rounded up to whole pages.

    Raises:
        MemoryBudgetExceeded: the kernel has no room for the mapping (a limit on the address
            space, or strict overcommit, which ignores that nothing is reserved).
    """

    def __init__(self, num_bytes: int) -> None:
        if num_bytes < 1:
            raise InvariantViolation(f"a region of {num_bytes} bytes")
        self._num_bytes = round_up_to_page(num_bytes)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        try:
            mapping = mmap.mmap(-1, self._num_bytes, flags=flags)
        except (OSError, OverflowError) as error:
            raise MemoryBudgetExceeded(
                f"the kernel cannot map a region of {self._num_bytes} bytes: {error}"
            ) from error
        # The array holds the mapping, every view holds the array: the last one to go unmaps (I3).
        self._bytes: npt.NDArray[np.uint8] | None = np.frombuffer(mapping, np.uint8)
        self._address = int(self._bytes.ctypes.data)
        # A kernel without huge pages does not know the advice, and does not need it.
        self._advise(0, self._num_bytes, mmap.MADV_NOHUGEPAGE, ignored=errno.EINVAL)

    @property
    def num_bytes(self) -> int:
        """Size of the region, a multiple of `PAGE_BYTES`."""
        return self._num_bytes

    @property
    def address(self) -> int:
        """Where the region begins, for engines that bind raw pointers; page-aligned."""
        self._require_open()
        return self._address

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._bytes is None

    def array(
        self, shape: tuple[int, ...], dtype: npt.DTypeLike, offset: int = 0
    ) -> npt.NDArray[Any]:
        """A writable C-contiguous array `shape` of `dtype` that begins `offset` bytes in.

        Arrays may overlap. After `close` they read as zeros, and what is written to them counts
        as memory again until they go: drop them with the region.
        """
        base = self._require_open()
        kind = np.dtype(dtype)
        num_bytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        self._check_range(offset, num_bytes)
        return np.ndarray(shape, kind, buffer=base.data, offset=offset)

    def give_back(self, offset: int, length: int) -> int:
        """Return the whole pages inside `[offset, offset + length)` to the kernel.

        They read as zeros from then on. Returns how many bytes of address space that was: less
        than `length` when an end lies inside a page (I2). The GIL is free meanwhile.
        """
        self._require_open()
        self._check_range(offset, length)
        start = round_up_to_page(offset)
        end = (offset + length) // PAGE_BYTES * PAGE_BYTES
        if end <= start:
            return 0
        self._advise(start, end - start, mmap.MADV_DONTNEED)
        return end - start

    def resident_bytes(self, offset: int = 0, length: int | None = None) -> int:
        """Bytes of the pages under `[offset, offset + length)` that are in memory now.

        A page counts in full when any byte of it lies in the range, also one that was only read.
        Costs about 0.1 ms per GiB of range: for reports, not for each step.
        """
        self._require_open()
        length = self._num_bytes - offset if length is None else length
        self._check_range(offset, length)
        page = offset // PAGE_BYTES
        end_page = -(-(offset + length) // PAGE_BYTES) if length else page
        answer = np.empty(min(end_page - page, _MINCORE_CHUNK_PAGES), np.uint8)
        num_resident = 0
        while page < end_page:
            num_pages = min(end_page - page, _MINCORE_CHUNK_PAGES)
            where = self._address + page * PAGE_BYTES
            if _MINCORE(where, num_pages * PAGE_BYTES, answer.ctypes.data) != 0:
                raise InvariantViolation(f"mincore failed: {os.strerror(ctypes.get_errno())}")
            # Bit 0 says that the page is there; the others are reserved (mincore(2)).
            num_resident += int(np.count_nonzero(answer[:num_pages] & 1))
            page += num_pages
        return num_resident * PAGE_BYTES

    def close(self) -> None:
        """Give back every page at once, and the address space with the last array. Idempotent."""
        if self._bytes is not None:
            self._advise(0, self._num_bytes, mmap.MADV_DONTNEED)
            self._bytes = None

    def _require_open(self) -> npt.NDArray[np.uint8]:
        if self._bytes is None:
            raise InvariantViolation("a closed region was used")
        return self._bytes

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._num_bytes:
            raise InvariantViolation(
                f"bytes {offset} to {offset + length} of a region of {self._num_bytes}"
            )

    def _advise(self, start: int, length: int, advice: int, ignored: int = 0) -> None:
        if _MADVISE(self._address + start, length, advice) != 0:
            code = ctypes.get_errno()
            if code != ignored:
                raise InvariantViolation(f"madvise({advice}) failed: {os.strerror(code)}")
