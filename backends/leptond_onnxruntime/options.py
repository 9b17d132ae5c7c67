"""The engine's own table of the configuration: how many threads, and whether they spin.

    [backends.onnxruntime]
    num_threads = 0
    spin = true

Read by `plugin.load` on a loader thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from leptond.errors import ModelFailed

__all__ = ["EngineOptions", "num_available_cores"]

_CPUS = Path("/sys/devices/system/cpu")
_MAX_THREADS = 1024


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the graphs of one model are run.

    Attributes:
        num_threads: threads of one step, the calling one included; 0 is one for each physical
            core that this process may use.
        spin: let threads wait for the next operation of a run by spinning. They stop at its
            end in any case, so an idle model takes no time. Off costs a third of the tokens per
            second at batch 1 and a tenth at batch 16 on a quiet machine, and wins on a busy one
            (docs/adr/0004-engine.md).
    """

    num_threads: int = 0
    spin: bool = True

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any]) -> EngineOptions:
        """Check and take over a table.

        Raises:
            ModelFailed: an unknown key, or a value out of range; names the key and the range.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(table) - known):
            raise ModelFailed(
                f"unknown option of the onnxruntime backend: {', '.join(unknown)}; "
                f"known are {', '.join(sorted(known))}"
            )
        options = cls(**table)
        if not _is_count(options.num_threads):
            raise ModelFailed(
                f"num_threads is {options.num_threads!r}, not a number from 0 to {_MAX_THREADS}"
            )
        if not isinstance(options.spin, bool):
            raise ModelFailed(f"spin is {options.spin!r}, neither true nor false")
        return options

    @property
    def actual_threads(self) -> int:
        """`num_threads`, or what 0 stands for on this machine."""
        return self.num_threads or num_available_cores()


def num_available_cores() -> int:
    """Physical cores among the processors that this process may run on; at least 1.

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


def _is_count(value: object) -> bool:
    # `True` is an int to Python; in a configuration it is a mistake.
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_THREADS
