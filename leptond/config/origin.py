"""Where a value of the configuration came from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["DEFAULT", "Origin", "OriginKind"]


class OriginKind(StrEnum):
    """The layers, the later ones winning."""

    DEFAULT = "default"
    FILE = "file"
    VARIABLE = "variable"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Origin:
    """One layer, and the name of the file, variable or flag."""

    kind: OriginKind
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


DEFAULT = Origin(OriginKind.DEFAULT)
