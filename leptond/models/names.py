"""Names of models: `model` or `model:variant`, as callers write them.

Used on any thread. A name becomes a directory, so what it may hold is narrow.
"""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass

from leptond.errors import InvalidRequest

__all__ = ["ModelName"]

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class ModelName:
    """A parsed name; `variant` is None when the model's default is meant."""

    model: str
    variant: str | None = None

    @classmethod
    def parse(cls, text: str, *, field: str = "model") -> ModelName:
        """Read `model[:variant]`.

        Raises:
            InvalidRequest: naming `field`, when a part holds other than letters, digits, `.`, `_`
                and `-`, starts with none of the first two, or is longer than 128 characters.
        """
        model, colon, variant = text.partition(":")
        for part in (model, variant) if colon else (model,):
            if not _PART.fullmatch(part):
                msg = (
                    f"{field} {reprlib.repr(text)} is not a model name: expected name or "
                    "name:variant, each of 1 to 128 letters, digits, '.', '_' and '-', starting "
                    "with a letter or digit"
                )
                raise InvalidRequest(msg, field=field)
        return cls(model, variant if colon else None)

    def __str__(self) -> str:
        return self.model if self.variant is None else f"{self.model}:{self.variant}"
