"""Counts what one rendering of a chat template does, and ends it at a limit.

A template runs in this process and cannot be stopped from outside, so everything that it can do is
priced beforehand: an operation 1 unit, reading or building text 1 unit per 128 characters, copying
a list 1 unit per 16 items. A unit is about a microsecond, so a budget bounds time; and as nothing
is built before it is paid for, a budget of n units bounds memory to 128 n characters.

One per rendering; used on its thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MappingView
from contextlib import contextmanager
from typing import Any

from jinja2.utils import Namespace

from leptond.errors import InvalidRequest

__all__ = ["TemplateNamespace", "WorkBudget"]

_CHARS_SHIFT = 7  # 128 characters a unit: searching and case mapping take up to 10 ns each
_ITEMS_SHIFT = 4  # 16 items a unit
_MAX_NESTING = 64  # lists in lists and calls in macros; Python's own limit is far beyond
_MAX_INT_BITS = 4096  # arithmetic with larger ones takes longer than a unit


class WorkBudget:
    """What one rendering may still do.

    Args:
        limit: units.

    Every method raises `InvalidRequest` when the budget is spent, before the work is done.
    """

    __slots__ = ("_left", "_limit", "_nesting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._nesting = 0

    def charge(self, units: int = 1) -> None:
        """Pay for `units` of work, at least one."""
        self._left -= max(units, 1)
        if self._left < 0:
            raise InvalidRequest(
                f"the chat template exceeds its limit of {self._limit} units of work for this chat",
                field="input.messages",
            )

    def charge_text(self, num_chars: int) -> None:
        """Pay for an operation that reads or builds so many characters."""
        self.charge(1 + (num_chars >> _CHARS_SHIFT))

    def charge_items(self, num_items: int) -> None:
        """Pay for an operation that copies so many items of a list."""
        self.charge(1 + (num_items >> _ITEMS_SHIFT))

    def weigh(self, value: Any) -> None:
        """Pay for an operation that goes through `value` to its depths: comparing, printing.

        A value that is in several places of another is paid for in each of them, as it will be
        met in each of them: a list that holds itself twice over, 40 levels deep, is 2 ** 40.
        """
        level = [value]
        for _ in range(_MAX_NESTING):
            deeper: list[Any] = []
            for item in level:
                if isinstance(item, str):
                    self.charge_text(len(item))
                elif isinstance(item, int):
                    self.charge()
                    self.check_number(item)
                else:
                    self.charge()
                    if (children := _children(item)) is not None:
                        self.charge(len(children))
                        deeper += children
            if not deeper:
                return
            level = deeper
        raise InvalidRequest("the chat template nests values too deeply", field="input.messages")

    def check_number(self, value: Any) -> None:
        """Refuse integers that are too long to calculate with."""
        if isinstance(value, int) and value.bit_length() > _MAX_INT_BITS:
            message = f"the chat template calculates with more than {_MAX_INT_BITS} bits"
            raise InvalidRequest(message, field="input.messages")

    @contextmanager
    def nested(self) -> Iterator[None]:
        """Enter a macro or a recursive loop, for the time of a `with` block."""
        self._nesting += 1
        if self._nesting > _MAX_NESTING:
            message = f"the chat template calls itself more than {_MAX_NESTING} levels deep"
            raise InvalidRequest(message, field="input.messages")
        try:
            yield
        finally:
            self._nesting -= 1

    def counted(self, items: Iterator[Any]) -> Iterator[Any]:
        """Pay for each item as it is taken."""
        for item in items:
            self.charge()
            yield item

    def settled(self, value: Any) -> Any:
        """Return `value`, as a list when it is an iterator, so that it can be weighed."""
        return list(self.counted(value)) if isinstance(value, Iterator) else value


class TemplateNamespace(Namespace):
    """Jinja's `namespace()`; what is in it can be weighed, and printing it shows nothing."""

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        object.__setattr__(self, "_variables", dict(*args, **kwargs))

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":  # isinstance asks for it
            return object.__getattribute__(self, name)
        try:
            return _variables(self)[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        _variables(self)[name] = value

    def __repr__(self) -> str:
        return "<namespace>"


def _variables(namespace: TemplateNamespace) -> dict[str, Any]:
    variables: dict[str, Any] = object.__getattribute__(namespace, "_variables")
    return variables


def _children(value: Any) -> list[Any] | tuple[Any, ...] | None:
    """Return what a container holds; None for everything else."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, TemplateNamespace):
        return list(_variables(value).values())
    if isinstance(value, MappingView):
        return list(value) if isinstance(value, Iterable) else None
    return None
