"""What is wrong with a configuration: all of it at once, each with its place and what is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ConfigError", "Problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        where: the file, the variable or the flag.
        key: `section.key`, or empty when the place says it all.
        value: as it was written, or empty; secrets never.
        reason: `must be ...`, or what else is the matter.
    """

    where: str
    reason: str
    key: str = ""
    value: str = ""

    def __str__(self) -> str:
        said = " = ".join(part for part in (self.key, self.value) if part)
        return ": ".join(part for part in (self.where, said, self.reason) if part)


class ConfigError(Exception):
    """The configuration cannot be used; the start must stop."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)
