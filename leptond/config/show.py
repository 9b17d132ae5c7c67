"""The configuration in effect, as TOML that can be used again, each line with its origin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from leptond.config.layers import extra, sections
from leptond.config.loading import LoadedConfig
from leptond.config.origin import Origin

__all__ = ["Row", "iter_rows", "show_config"]

Row = tuple[str, str, Any, Origin]
"""Section, key, value in the types of TOML and JSON, origin."""

_MASK: Final = "***"


def show_config(loaded: LoadedConfig) -> str:
    """Return the text of `leptond config show`; secrets are masked."""
    lines: list[str] = []
    last_section = ""
    for section, key, value, origin in iter_rows(loaded):
        if section != last_section:
            lines += ["", f"[{section}]"]
            last_section = section
        if value is None:
            lines.append(f"# {key} is not set")
            continue
        written = f"{_key(key)} = {_to_toml(value)}"
        lines.append(f"{written:<48} # {origin}")
    return "\n".join(lines[1:]) + "\n"


def iter_rows(loaded: LoadedConfig) -> Iterator[Row]:
    """Yield every value in effect, secrets masked."""
    for section, model in sections():
        values = getattr(loaded.config, section).model_dump(mode="json", exclude_none=False)
        for key, info in model.model_fields.items():
            value = values[key]
            if extra(info)["is_secret"]:
                value = dict.fromkeys(value, _MASK)
            yield section, key, value, loaded.origin(f"{section}.{key}")
    for name, table in loaded.config.backend.items():
        for key, value in table.items():
            yield f"backend.{_key(name)}", key, value, loaded.origin(f"backend.{name}")


def _to_toml(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{_key(k)} = {_to_toml(v)}" for k, v in value.items() if v is not None)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_to_toml, value)) + "]"
    if isinstance(value, str | bool):
        # A basic string of TOML is a string of JSON; its literal truth values are JSON's too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)  # numbers, and the dates that only an engine's table can hold


def _key(name: str) -> str:
    is_bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if is_bare else _to_toml(name)
