"""Which values a setting takes, in words: for errors and for the reference."""

from __future__ import annotations

import types
import typing
from typing import Any, Literal

from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

__all__ = ["describe_range", "plain_kinds"]


def plain_kinds(annotation: Any) -> set[Any]:
    """Return the plain types of an annotation: of `int | None` {int, NoneType}."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return plain_kinds(typing.get_args(annotation)[0])
    if origin in {typing.Union, types.UnionType}:
        return {kind for part in typing.get_args(annotation) for kind in plain_kinds(part)}
    return {origin or annotation}


def describe_range(info: FieldInfo) -> str:
    """Return `a whole number from 0 to 9`, `true or false`, `one of ...`."""
    kinds = plain_kinds(info.annotation)
    if Literal in kinds:
        choices = (f'"{word}"' for word in typing.get_args(info.annotation))
        return f"one of {', '.join(choices)}"
    if bool in kinds:
        return "true or false"
    for kind, words in ((int, "a whole number"), (float, "a number")):
        if kind in kinds:
            return f"{words}{_describe_bounds(info)}"
    if tuple in kinds:
        return "a list of strings"
    return "a table" if dict in kinds else "a string"


def _describe_bounds(info: FieldInfo) -> str:
    low = next((rule.ge for rule in info.metadata if isinstance(rule, Ge)), None)
    high = next((rule.le for rule in info.metadata if isinstance(rule, Le)), None)
    return f" from {_plain(low)} to {_plain(high)}"


def _plain(bound: Any) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)
