"""Names the processor and those of its instruction sets that decide which kernels run."""

from __future__ import annotations

from pathlib import Path

__all__ = ["cpu_model", "instruction_sets"]

_CPUINFO = Path("/proc/cpuinfo")
# x86-64 first, then AArch64.
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


def _field(name: str) -> str:
    if not _CPUINFO.exists():
        return ""
    for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
