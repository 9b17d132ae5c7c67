"""What of the processor decides how fast, and how exact, this engine is.

I1  Full-range int8 weights never meet an x86 processor without VNNI. Its kernels add two products
    of an unsigned and a signed byte in 16 bits, where 2 · 255 · 127 saturates; with weights of
    at most 64 the sum, 2 · 255 · 64, fits. Perplexity of a decoder: 36 in place of 28.

Read on any thread; nothing here imports the engine.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = [
    "FULL_INT8_LIMIT",
    "cpu_model",
    "instruction_sets",
    "num_available_cores",
    "safe_int8_limit",
]

FULL_INT8_LIMIT = 127
_REDUCED_INT8_LIMIT = 64

_CPUINFO = Path("/proc/cpuinfo")
_CPUS = Path("/sys/devices/system/cpu")
_X86 = frozenset({"avx", "avx2", "avx512f"})
_WIDE_SUMS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_RELEVANT = (
    _X86
    | _WIDE_SUMS
    | {"amx_bf16", "avx512_bf16", "avx512bw", "f16c", "fma"}
    | {"asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2"}
)


def cpu_model() -> str:
    """Return the name of the first processor, "" where the system does not tell."""
    return _field("model name")


def instruction_sets() -> tuple[str, ...]:
    """Return the relevant instruction sets of the first processor, sorted; () where unknown."""
    flags = _field("flags") or _field("Features")
    return tuple(sorted(_RELEVANT.intersection(flags.split())))


def safe_int8_limit(instructions: tuple[str, ...]) -> int:
    """Return the largest magnitude of an int8 weight that a processor multiplies exactly (I1)."""
    if _X86.isdisjoint(instructions) or not _WIDE_SUMS.isdisjoint(instructions):
        return FULL_INT8_LIMIT
    return _REDUCED_INT8_LIMIT


def num_available_cores() -> int:
    """Return the physical cores among the processors that this process may run on; at least 1.

    Two hyper-threads of a core share its multipliers: a thread for each would only get in the
    other's way.
    """
    return max(1, len({_core_of(cpu) for cpu in os.sched_getaffinity(0)}))


def _core_of(cpu: int) -> tuple[str, str]:
    topology = _CPUS / f"cpu{cpu}" / "topology"
    try:
        package = (topology / "physical_package_id").read_text(encoding="ascii").strip()
        return package, (topology / "core_id").read_text(encoding="ascii").strip()
    except FileNotFoundError:  # a kernel or container that hides it: each is a core of its own
        return "", str(cpu)


def _field(name: str) -> str:
    if not _CPUINFO.exists():
        return ""
    for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
