"""The description of a variant beside its graphs: a dataclass as JSON, with a format version."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from leptond.errors import ModelFailed

__all__ = ["Precision", "read_spec", "write_spec"]

SpecT = TypeVar("SpecT")


class Precision(StrEnum):
    """How a variant keeps its weights and computes."""

    FLOAT32 = "float32"
    INT8 = "int8"
    FLOAT16 = "float16"


def write_spec(spec: Any, path: Path, format_version: int) -> None:
    """Write every field of a dataclass instance."""
    facts = {"format_version": format_version, **asdict(spec)}
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def read_spec(kind: type[SpecT], path: Path, format_version: int) -> SpecT:
    """Read a dataclass with the fields `precision` and `instruction_sets`, among others.

    Raises:
        ModelFailed: the file is missing, damaged, or of another format version.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        version = facts.pop("format_version")
        if version != format_version:
            raise ModelFailed(
                f"{path}: format {version}, this version reads {format_version}: "
                "import the model again"
            )
        facts["precision"] = Precision(facts["precision"])
        facts["instruction_sets"] = tuple(facts["instruction_sets"])
        return kind(**facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFailed(f"{path}: not a readable graph description: {error}") from error
