"""Reads `generation.json`, which the import of a model wrote beside its tokenizer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import NoneType
from typing import Any

from leptond.checkpoint import GenerationDefaults
from leptond.errors import ModelFailed

__all__ = ["read_generation_defaults"]

_TYPES: dict[str, tuple[type, ...]] = {
    "max_positions": (int,),
    "add_bos": (bool,),
    "add_eos": (bool,),
    "bos_token_id": (int, NoneType),
    "eos_token_id": (int, NoneType),
    "stop_token_ids": (list,),
    "bos_token": (str,),
    "eos_token": (str,),
    "pad_token_id": (int, NoneType),
    "unknown_token_id": (int, NoneType),
    "sampling": (dict,),
}


def read_generation_defaults(directory: Path) -> GenerationDefaults:
    """Read `directory/generation.json`.

    Raises:
        ModelFailed: the file is missing, is not JSON, or a field is missing, unknown or of the
            wrong type. Nothing is guessed: a model that lost its stop tokens would never end.
    """
    path = directory / "generation.json"
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelFailed(f"{path}: {error}") from error
    if not isinstance(fields, dict):
        raise ModelFailed(f"{path}: an object is needed")
    for name, value in fields.items():
        if not _is_of_type(value, _TYPES.get(name, ())):
            raise ModelFailed(f"{path}: {name}: {value!r} is not what this field holds")
    if missing := _required() - fields.keys():
        raise ModelFailed(f"{path}: {', '.join(sorted(missing))}: missing")
    stop_ids = fields["stop_token_ids"]
    if not all(_is_of_type(stop_id, (int,)) for stop_id in stop_ids):
        raise ModelFailed(f"{path}: stop_token_ids: {stop_ids!r} is not a list of token ids")
    return GenerationDefaults(**fields | {"stop_token_ids": tuple(stop_ids)})


def _required() -> set[str]:
    return {
        field.name
        for field in dataclasses.fields(GenerationDefaults)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }


def _is_of_type(value: Any, types: tuple[type, ...]) -> bool:
    # bool is an int to Python, and not to us.
    return type(value) in types
