"""Typed look-ups in GGUF metadata: each failure is one line that names the file and the key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from leptond.checkpoint.gguf_file import MetadataValue
from leptond.errors import InvalidRequest, UnsupportedCapability

__all__ = ["GgufMetadata"]

_T = TypeVar("_T")


class GgufMetadata:
    """The metadata of one file. A look-up without `default` requires its key."""

    def __init__(self, path: Path, values: Mapping[str, MetadataValue]) -> None:
        self.path = path
        self._values = values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def keys_under(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix`."""
        return (key for key in self._values if key.startswith(prefix))

    def value(self, key: str) -> MetadataValue:
        """Return the raw value of a key that exists."""
        return self._values[key]

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number that is not negative."""
        value = self._typed(key, int, default)
        if value < 0:
            raise InvalidRequest(f"{self.path}: {key}: {value} is negative")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """Return a whole number of at least 1."""
        value = self.integer(key, default)
        if value == 0:
            raise InvalidRequest(f"{self.path}: {key}: 0 is not a count")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number, whole or not."""
        if isinstance(self._values.get(key), int):
            return float(self._typed(key, int, None))
        return self._typed(key, float, default)

    def boolean(self, key: str, *, default: bool) -> bool:
        """Return a flag."""
        return self._typed(key, bool, default)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string."""
        return self._typed(key, str, default)

    def strings(self, key: str) -> list[str]:
        """Return a list of strings."""
        return self._list(key, str)

    def integers(self, key: str) -> list[int]:
        """Return a list of whole numbers."""
        return self._list(key, int)

    def numbers(self, key: str) -> list[float]:
        """Return a list of numbers with a fractional part."""
        return self._list(key, float)

    def refuse(self, key: str, reason: str) -> UnsupportedCapability:
        """Return the error that refuses `key` by name; the caller raises it."""
        return UnsupportedCapability(f"{self.path}: {key} = {self._shown(key)}: {reason}")

    def _typed(self, key: str, kind: type[_T], default: _T | None) -> _T:
        value = self._values.get(key, default)
        if value is None:
            raise InvalidRequest(f"{self.path}: {key} is missing")
        # `type` and not `isinstance`: a flag is no whole number.
        if not isinstance(value, kind) or type(value) is not kind:
            raise InvalidRequest(
                f"{self.path}: {key}: {kind.__name__} expected, not {self._shown(key)}"
            )
        return value

    def _list(self, key: str, kind: type[_T]) -> list[_T]:
        values = self._typed(key, list, None)
        if not all(type(value) is kind for value in values):
            raise InvalidRequest(f"{self.path}: {key}: a list of {kind.__name__} expected")
        return values

    def _shown(self, key: str) -> str:
        value = self._values.get(key)
        return f"a list of {len(value)}" if isinstance(value, list) else repr(value)
