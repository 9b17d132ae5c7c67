"""The engine's own table of the configuration.

    [backend.ctranslate2]
    num_threads = 0

Read by `plugin.load` on a loader thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from leptond.backend.processor import num_available_cores
from leptond.errors import ModelFailed

__all__ = ["EngineOptions"]

_MAX_THREADS = 1024


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the calls of one model are computed.

    Attributes:
        num_threads: threads of one call; 0 is one for each physical core that this process may
            use.
    """

    num_threads: int = 0

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any], num_cores: int = 0) -> EngineOptions:
        """Check and take over a table; without `num_threads` of its own, `num_cores` bounds it.

        Raises:
            ModelFailed: an unknown key, or a value out of range; names the key and the range.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(table) - known):
            raise ModelFailed(
                f"unknown option of the ctranslate2 backend: {', '.join(unknown)}; "
                f"known are {', '.join(sorted(known))}"
            )
        options = cls(**table)
        if not _is_count(options.num_threads, _MAX_THREADS):
            raise ModelFailed(
                f"num_threads is {options.num_threads!r}, not a whole number from 0 to "
                f"{_MAX_THREADS}"
            )
        if num_cores and not options.num_threads:
            return cls(num_threads=min(num_cores, num_available_cores()))
        return options

    @property
    def actual_threads(self) -> int:
        """`num_threads`, or what 0 stands for on this machine."""
        return self.num_threads or num_available_cores()


def _is_count(value: object, limit: int) -> bool:
    # `True` is an int to Python; in a configuration it is a mistake.
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit
