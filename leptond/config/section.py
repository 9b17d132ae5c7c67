"""How a setting is declared: value, description, range, and how flags and variables reach it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

__all__ = ["Section", "setting"]


class Section(BaseModel):
    """A table of the file: frozen, without unknown keys, and strict about types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


def setting(
    default: Any,
    description: str,
    *,
    flag: str = "",
    is_secret: bool = False,
    has_variable: bool = True,
    ge: float | None = None,
    le: float | None = None,
) -> Any:
    """Declare one setting.

    Args:
        default: its value when nobody says else.
        description: for the reference.
        flag: the option of `leptond serve` that sets it, if one does.
        is_secret: never printed.
        has_variable: whether `LEPTOND_<SECTION>_<KEY>` sets it; tables have none.
        ge: smallest value.
        le: largest value.
    """
    extra: JsonDict = {"flag": flag, "is_secret": is_secret, "has_variable": has_variable}
    # TOML and variables give lists; strictness is for numbers and truth values.
    strict = False if isinstance(default, tuple) else None
    return Field(
        default, description=description, json_schema_extra=extra, strict=strict, ge=ge, le=le
    )
