"""Typed look-ups in a JSON file: each failure is one line that names the file and the key."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from leptond.errors import InvalidRequest, UnsupportedCapability

__all__ = ["JsonFacts", "read_json"]

_T = TypeVar("_T")


def read_json(path: Path) -> Any:
    """Return what the JSON file at `path` holds.

    Raises:
        InvalidRequest: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InvalidRequest(f"{path}: not JSON: {error}") from error


class JsonFacts:
    """One JSON object. A key that is null is absent; a look-up without `default` requires its key.

    Args:
        path: the file, for messages.
        values: the object.
        prefix: what stands before the keys in messages, for an object inside another.
    """

    def __init__(self, path: Path, values: Any, prefix: str = "") -> None:
        if not isinstance(values, Mapping):
            raise InvalidRequest(f"{path}: {prefix or 'the file'}: an object is needed")
        self.path = path
        self.prefix = prefix
        self.values: Mapping[str, Any] = values

    @classmethod
    def read(cls, path: Path) -> JsonFacts:
        """Read the file at `path`. Raises `InvalidRequest`, as `read_json` does."""
        return cls(path, read_json(path))

    @classmethod
    def read_optional(cls, path: Path) -> JsonFacts:
        """Read the file at `path`; a file that is not there has no keys."""
        return cls.read(path) if path.exists() else cls(path, {})

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number that is not negative."""
        value = self._typed(key, int, default)
        if value < 0:
            raise self.invalid(key, "it is negative")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """Return a whole number of at least 1."""
        value = self.integer(key, default)
        if value == 0:
            raise self.invalid(key, "it is not a count")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number, whole or not."""
        if type(self.values.get(key)) is int:
            return float(self._typed(key, int, None))
        value = self._typed(key, float, default)
        if not math.isfinite(value):
            raise self.invalid(key, "it is not finite")
        return value

    def boolean(self, key: str, *, default: bool) -> bool:
        """Return a flag."""
        return self._typed(key, bool, default)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string."""
        return self._typed(key, str, default)

    def array(self, key: str) -> list[Any]:
        """Return a list; [] when the key is absent."""
        return self._typed(key, list, [])

    def texts(self, key: str) -> dict[str, str]:
        """Return an object of strings; {} when the key is absent."""
        values = self.object(key).values
        if not all(isinstance(value, str) for value in values.values()):
            raise self.invalid(key, "an object of strings is needed")
        return dict(values)

    def object(self, key: str) -> JsonFacts:
        """Return the object under `key`; one without keys when it is absent."""
        value = self.values.get(key)
        return JsonFacts(self.path, {} if value is None else value, f"{self.prefix}{key}.")

    def require_neutral(self, values: Mapping[str, tuple[Any, ...]]) -> None:
        """Refuse each of these keys whose value switches on what is not supported.

        Args:
            values: by key, the values that change nothing; absent keys never do.
        """
        for key, neutral in values.items():
            if key in self and self.values[key] not in neutral:
                raise self.refuse(key, "not supported")

    def refuse(self, key: str, reason: str) -> UnsupportedCapability:
        """Return the error that refuses `key` by name; the caller raises it."""
        return UnsupportedCapability(
            f"{self.path}: {self.prefix}{key} = {self.values.get(key)!r}: {reason}"
        )

    def invalid(self, key: str, reason: str) -> InvalidRequest:
        """Return the error that says what is wrong with `key`; the caller raises it."""
        return InvalidRequest(
            f"{self.path}: {self.prefix}{key} = {self.values.get(key)!r}: {reason}"
        )

    def _typed(self, key: str, kind: type[_T], default: _T | None) -> _T:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise InvalidRequest(f"{self.path}: {self.prefix}{key} is missing")
        # `type` and not `isinstance`: a flag is no whole number.
        if not isinstance(value, kind) or type(value) is not kind:
            raise self.invalid(key, f"{kind.__name__} expected")
        return value
