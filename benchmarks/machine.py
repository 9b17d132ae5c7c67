"""What every result says of the machine that it was measured on."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["cpu_seconds", "describe_machine", "resident_bytes", "thread_cpu_seconds"]

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "avx_vnni")
_PACKAGES = ("onnxruntime", "ctranslate2", "grpcio", "protobuf", "numpy", "tokenizers", "uvloop")


def describe_machine() -> dict[str, object]:
    """Processor, instruction sets, cores and versions; JSON-ready."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    pairs = (line.partition(":") for line in cpuinfo.splitlines())
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    flags = set(facts.get("flags", "").split())
    return {
        "processor": facts.get("model name", platform.processor()),
        "instruction_sets": [flag for flag in _FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def cpu_seconds(pid: int) -> float:
    """User and system time of one process so far, in seconds; to the nanosecond.

    The clock's id is that of clock_getcpuclockid(3), as Linux makes it of a pid.
    """
    return time.clock_gettime((~pid << 3) | 2)


def thread_cpu_seconds(pid: int, name: str) -> float:
    """CPU time of a process's threads whose kernel name begins with `name`, in seconds."""
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text(encoding="utf-8").startswith(name):
            total_ns += int((task / "schedstat").read_text(encoding="utf-8").split()[0])
    return total_ns / 1e9


def resident_bytes(pid: int) -> int:
    """Resident memory of one process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
