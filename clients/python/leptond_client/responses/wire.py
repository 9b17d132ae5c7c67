"""What the conversions share: folds, and how fields and enumerations are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from leptond_client.errors import InternalError

__all__ = ["Fold", "cut_short", "enum_name", "enum_value", "only", "same_fields"]

ItemT_co = TypeVar("ItemT_co", covariant=True)
FinalT_co = TypeVar("FinalT_co", covariant=True)
ValueT = TypeVar("ValueT")
EnumT = TypeVar("EnumT", bound=StrEnum)


class Fold(Protocol[ItemT_co, FinalT_co]):
    """What the messages of one stream mean."""

    def add(self, message: Any) -> ItemT_co | None:
        """Take the next message; None when it holds nothing for the caller."""

    def final(self) -> FinalT_co:
        """What the whole stream said, once it has ended well."""


def cut_short() -> InternalError:
    """The error of a stream that ended well but without its final message."""
    return InternalError("the stream ended without its final message", was_admitted=True)


def only(items: Iterable[ValueT], name: str) -> ValueT:
    """The one item that there must be."""
    found = list(items)
    if len(found) != 1:
        msg = f"the answer has {len(found)} {name} where one was asked for"
        raise InternalError(msg, was_admitted=True)
    return found[0]


def same_fields(kind: type[ValueT], wire: Any) -> ValueT:
    """A value whose fields are called like those of the message."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # our dataclasses
    return kind(**{name: getattr(wire, name) for name in names})


def enum_value(kind: type[EnumT], wire: Any, prefix: str, number: int) -> EnumT:
    """The member of the same name; UNSPECIFIED for one that is newer than this client."""
    name = enum_name(wire, prefix, number)
    return kind[name.upper()] if name else kind["UNSPECIFIED"]


def enum_name(wire: Any, prefix: str, number: int) -> str:
    """The value's name in lower case; empty for one that is newer than this client."""
    described = wire.DESCRIPTOR.values_by_number.get(number)
    return described.name.removeprefix(prefix).lower() if described else ""
