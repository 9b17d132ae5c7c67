"""The layers of the configuration, each as raw values with their origins.

    defaults < file < LEPTOND_* variables < flags

A layer is read here and checked in `leptond.config.loading`; a value that a later layer replaces is
checked all the same.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo

from leptond.config.errors import Problem
from leptond.config.origin import Origin, OriginKind
from leptond.config.ranges import plain_kinds
from leptond.config.schema import Config
from leptond.config.section import Section

__all__ = [
    "Layer",
    "read_file",
    "read_flags",
    "read_variables",
    "sections",
    "settings_of_flags",
    "variable_name",
]

PREFIX: Final = "LEPTOND_"
# Names that follow no rule: the path of the file itself, and the store's short name.
_CONFIG_VARIABLE: Final = "LEPTOND_CONFIG"
_SHORT_NAMES: Final = {"LEPTOND_STORE": ("models", "stores")}
# Kubernetes sets such variables for a service that is called leptond or leptond-something; tests
# have some of their own.
_FOREIGN: Final = re.compile(
    r"LEPTOND_(TEST_\w+|(\w+_)?(SERVICE_HOST|SERVICE_PORT\w*|PORT(_\d+_(TCP|UDP|SCTP)\w*)?))"
)
_TRUE: Final = frozenset({"1", "on", "true", "yes"})
_FALSE: Final = frozenset({"0", "off", "false", "no"})


@dataclass(slots=True)
class Layer:
    """Raw values of one layer: `values[section][key]`; `origins["section.key"]`."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def put(self, section: str, key: str, value: Any, origin: Origin) -> None:
        """Add one value."""
        self.values.setdefault(section, {})[key] = value
        self.origins[f"{section}.{key}"] = origin


def sections() -> Iterator[tuple[str, type[Section]]]:
    """Yield the tables that have a schema: all but `backend`."""
    for name, info in Config.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield name, info.annotation


def settings_of_flags() -> dict[str, str]:
    """Return the setting, `section.key`, that each flag of the command line sets."""
    return {
        flag: f"{section}.{key}"
        for section, model in sections()
        for key, info in model.model_fields.items()
        if (flag := extra(info)["flag"])
    }


def variable_name(section: str, key: str) -> str:
    """Return the variable that sets a key."""
    return f"{PREFIX}{section}_{key}".upper()


def read_file(path: Path) -> Layer:
    """Read a TOML file."""
    layer = Layer()
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        layer.problems.append(Problem(str(path), f"cannot be read: {error.strerror}"))
        return layer
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        layer.problems.append(Problem(str(path), f"is not TOML: {error}"))
        return layer
    origin = Origin(OriginKind.FILE, str(path))
    known = dict(sections())
    for section, table in document.items():
        if section not in Config.model_fields:
            reason = f"unknown table{_suggest(section, Config.model_fields)}"
            layer.problems.append(Problem(str(path), reason, f"[{section}]"))
        elif not isinstance(table, dict):
            layer.problems.append(Problem(str(path), "must be a table", section))
        else:
            for key, value in table.items():
                if section in known and key not in known[section].model_fields:
                    reason = f"unknown key{_suggest(key, known[section].model_fields)}"
                    layer.problems.append(Problem(str(path), reason, f"{section}.{key}"))
                else:
                    layer.put(section, key, value, origin)
    return layer


def read_variables(environ: Mapping[str, str]) -> Layer:
    """Read the `LEPTOND_*` variables; one that means nothing is a problem, not a riddle."""
    layer = Layer()
    known = {
        variable_name(section, key): (section, key, info)
        for section, model in sections()
        for key, info in model.model_fields.items()
        if is_settable(info)
    }
    for short, (section, key) in _SHORT_NAMES.items():
        known[short] = (section, key, dict(sections())[section].model_fields[key])
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name == _CONFIG_VARIABLE or _FOREIGN.fullmatch(name):
            continue
        if name not in known:
            layer.problems.append(Problem(name, f"unknown variable{_suggest(name, known)}"))
            continue
        section, key, info = known[name]
        if f"{section}.{key}" in layer.origins:
            other = layer.origins[f"{section}.{key}"].name
            layer.problems.append(Problem(name, f"says the same as {other}: set one of them"))
            continue
        value = parse_text(info, environ[name])
        layer.put(section, key, value, Origin(OriginKind.VARIABLE, name))
    return layer


def read_flags(flags: Mapping[str, Any]) -> Layer:
    """Read flags, `section.key` to value; None and an empty list mean that it was not given."""
    layer = Layer()
    known = dict(sections())
    for name, value in flags.items():
        if value is None or value in ((), []):
            continue
        section, _, key = name.partition(".")
        info = known[section].model_fields[key]  # KeyError: the command line's own mistake
        layer.put(section, key, value, Origin(OriginKind.FLAG, extra(info)["flag"]))
    return layer


def extra(info: FieldInfo) -> dict[str, Any]:
    """Return what `schema.setting` noted about a field."""
    return typing.cast("dict[str, Any]", info.json_schema_extra)


def is_settable(info: FieldInfo) -> bool:
    """Say whether a variable can set the field."""
    return bool(extra(info)["has_variable"])


def parse_text(info: FieldInfo, text: str) -> Any:
    """Turn the text of a variable into what TOML would have given; wrong text stays text."""
    kinds = plain_kinds(info.annotation)
    if tuple in kinds:
        separator = ":" if Path in plain_kinds(typing.get_args(info.annotation)[0]) else ","
        return [part.strip() for part in text.split(separator) if part.strip()]
    word = text.strip().lower()
    if bool in kinds and word in _TRUE | _FALSE:
        return word in _TRUE
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    return text.strip()


def _suggest(word: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else ""
