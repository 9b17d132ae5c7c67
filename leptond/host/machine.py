"""How much of the machine this process may use: affinity and control groups, not just hardware."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["available_cores", "available_memory_bytes"]

_ROOT: Final = Path("/")


def available_cores(root: Path = _ROOT) -> int:
    """Return how many cores the process may keep busy, at least 1.

    The affinity mask, cut to the CPU quota of the control groups (v2 `cpu.max`, v1
    `cpu.cfs_quota_us`). A fraction of a core is left out: a thread that uses it up stops all
    threads until the next period.

    Args:
        root: where `/proc` and `/sys` are; tests bring their own.
    """
    quotas = [quota for group in _control_groups(root) if (quota := _cpu_quota(group)) is not None]
    return max(1, min([len(os.sched_getaffinity(0)), *map(int, quotas)]))


def available_memory_bytes(root: Path = _ROOT) -> int:
    """Return how much memory the process may take: what is free, cut to the groups' limits.

    Args:
        root: where `/proc` and `/sys` are; tests bring their own.
    """
    candidates = [_free_memory_bytes(root)]
    for group in _control_groups(root):
        limit = _read_int(group / "memory.max") or _read_int(group / "memory.limit_in_bytes")
        used = _read_int(group / "memory.current") or _read_int(group / "memory.usage_in_bytes")
        if limit is not None:
            candidates.append(max(0, limit - (used or 0)))
    return min(candidates)


def _control_groups(root: Path) -> Iterator[Path]:
    """Yield the process's control groups and their parents, of every hierarchy that has one."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        hierarchy = root / "sys/fs/cgroup"
        if controllers:  # v1: one hierarchy per controller
            hierarchy /= controllers
        group = hierarchy / path.lstrip("/")
        # In a container the path may be the host's: its own root is then all there is to see.
        while group.is_relative_to(hierarchy):
            yield group
            group = group.parent


def _cpu_quota(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        quota = str(_read_int(group / "cpu.cfs_quota_us") or "max")
        period = str(_read_int(group / "cpu.cfs_period_us") or 0)
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None  # `max`, or -1 in v1: no limit
    return int(quota) / int(period)


def _free_memory_bytes(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    raise OSError(f"{root / 'proc/meminfo'} has no MemAvailable")


def _read_int(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
