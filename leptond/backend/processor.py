"""What a plug-in wants to know of the processor: its name, its instruction sets, its cores.

Read on any thread; nothing is kept, since a process may be moved to other cores.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cpu_model", "instruction_sets", "num_available_cores"]

_CPUINFO = Path("/proc/cpuinfo")
_CPUS = Path("/sys/devices/system/cpu")
# Those that decide which kernels run: x86-64 first, then AArch64.
_RELEVANT = frozenset(
    {
        "amx_bf16", "amx_int8", "avx", "avx2", "avx512_bf16", "avx512_vnni", "avx512bw",
        "avx512f", "avx_vnni", "f16c", "fma",
        "asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2",
    }
)  # fmt: skip


def cpu_model() -> str:
    """Return the name of the first processor, "" where the system does not tell."""
    return _field("model name")


def instruction_sets() -> tuple[str, ...]:
    """Return the relevant instruction sets of the first processor, sorted; () where unknown."""
    flags = _field("flags") or _field("Features")
    return tuple(sorted(_RELEVANT.intersection(flags.split())))


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
