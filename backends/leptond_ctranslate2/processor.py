"""Which int8 weights a processor multiplies exactly.

I1  Full-range int8 weights never meet an x86 processor without VNNI. Its kernels add two products
    of an unsigned and a signed byte in 16 bits, where 2 · 255 · 127 saturates; with weights of
    at most 64 the sum, 2 · 255 · 64, fits. Perplexity of a decoder: 36 in place of 28.

Nothing here imports the engine.
"""

from __future__ import annotations

__all__ = ["FULL_INT8_LIMIT", "safe_int8_limit"]

FULL_INT8_LIMIT = 127
_REDUCED_INT8_LIMIT = 64

_X86 = frozenset({"avx", "avx2", "avx512f"})
_WIDE_SUMS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


def safe_int8_limit(instructions: tuple[str, ...]) -> int:
    """Return the largest magnitude of an int8 weight that a processor multiplies exactly (I1)."""
    if _X86.isdisjoint(instructions) or not _WIDE_SUMS.isdisjoint(instructions):
        return FULL_INT8_LIMIT
    return _REDUCED_INT8_LIMIT
