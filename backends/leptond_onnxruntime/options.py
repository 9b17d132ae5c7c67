"""The engine's own table of the configuration: how many threads, how long they spin.

    [backend.onnxruntime]
    num_threads = 0
    spin_us = 20

Read by `plugin.load` on a loader thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from leptond.backend import SessionOptions
from leptond.backend.processor import num_available_cores
from leptond.errors import InvalidRequest, ModelFailed

__all__ = ["EngineOptions", "check_session_options"]

_MAX_THREADS = 1024
_MAX_SPIN_US = 1_000_000


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the graphs of one model are run.

    Attributes:
        num_threads: threads of one step, the calling one included; 0 is one for each physical
            core that this process may use.
        spin_us: how long a thread that waits for the next operation of a run spins before it
            sleeps, in microseconds; 0 is not at all. 20 is as fast as any longer time on a quiet
            machine, and on a busy one three times as fast as ONNX Runtime's own default
            (docs/adr/0004-engine.md). No thread spins between runs.
    """

    num_threads: int = 0
    spin_us: int = 20

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any], num_cores: int = 0) -> EngineOptions:
        """Check and take over a table; without `num_threads` of its own, `num_cores` bounds it.

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
        for name, limit in (("num_threads", _MAX_THREADS), ("spin_us", _MAX_SPIN_US)):
            value = getattr(options, name)
            if not _is_count(value, limit):
                raise ModelFailed(f"{name} is {value!r}, not a whole number from 0 to {limit}")
        if num_cores and not options.num_threads:
            return replace(options, num_threads=min(num_cores, num_available_cores()))
        return options

    @property
    def actual_threads(self) -> int:
        """`num_threads`, or what 0 stands for on this machine."""
        return self.num_threads or num_available_cores()


def check_session_options(options: SessionOptions, max_slots: int, max_tokens: int) -> None:
    """Refuse a session that is larger than its model allows.

    Raises:
        InvalidRequest: naming the field and the limit; also a number of threads, which is an
            option of the load.
    """
    for field, wanted, limit in (
        ("num_slots", options.num_slots, max_slots),
        ("max_tokens", options.max_tokens, max_tokens),
    ):
        if not 1 <= wanted <= limit:
            raise InvalidRequest(f"{field} is {wanted}, not from 1 to {limit}", field=field)
    if options.num_threads:
        raise InvalidRequest(
            "num_threads is 0 for a session of this engine: threads belong to the loaded "
            "graphs, and the backend's own option num_threads counts them",
            field="num_threads",
        )


def _is_count(value: object, limit: int) -> bool:
    # `True` is an int to Python; in a configuration it is a mistake.
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit
