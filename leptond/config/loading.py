"""From the layers to one checked configuration that knows where each value came from."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from leptond.config.address import Address
from leptond.config.errors import ConfigError, Problem
from leptond.config.layers import Layer, extra, read_file, read_flags, read_variables
from leptond.config.origin import DEFAULT, Origin, OriginKind
from leptond.config.ranges import describe_range
from leptond.config.schema import Config
from leptond.host import HostEnvironment
from leptond.telemetry import InvalidTelemetryOption, make_plan

__all__ = ["LoadedConfig", "default_stores", "load_config"]

_ADMIN_SOCKET: Final = "admin.sock"
_STORE_VARIABLES: Final = ("LEPTOND_STORE", "LEPTOND_MODELS_STORES")
_UNPROTECTED: Final = (
    "must be loopback or a Unix socket: nothing protects it from whoever can reach it "
    "(server.insecure, --insecure, allows it all the same)"
)


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration that may be used.

    Attributes:
        config: every value, the defaults that depend on the machine filled in.
        origins: `section.key` to where its value came from; keys that are absent are defaults.
        path: the file, if there was one.
    """

    config: Config
    origins: Mapping[str, Origin]
    path: Path | None = None

    def origin(self, key: str) -> Origin:
        """Return where the value of `section.key` came from."""
        return self.origins.get(key, DEFAULT)


def load_config(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> LoadedConfig:
    """Read and check the configuration. Raises `ConfigError`, which names all that is wrong.

    Args:
        path: of the TOML file; None takes `$LEPTOND_CONFIG`, or does without a file.
        environ: the process's own by default.
        flags: `section.key` to the value that a command line gives; None and empty lists count as
            not given.
    """
    environ = os.environ if environ is None else environ
    if path is None and (named := environ.get("LEPTOND_CONFIG")):
        path = Path(named)
    layers = [_machine_defaults(environ)]
    if path is not None:
        layers.append(read_file(path))
    layers += [read_variables(environ), read_flags(flags or {})]
    if problems := [problem for layer in layers for problem in _check_layer(layer)]:
        raise ConfigError(problems)

    values: dict[str, dict[str, Any]] = {}
    origins: dict[str, Origin] = {}
    for layer in layers:
        origins |= layer.origins
        for section, table in layer.values.items():
            values.setdefault(section, {}).update(table)
    loaded = LoadedConfig(
        _with_admin_addresses(Config.model_validate(values), environ), origins, path
    )
    if problems := list(_check_whole(loaded, environ)):
        raise ConfigError(problems)
    return loaded


def default_stores(environ: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Return the directories of models that are used when no flag and no file names any."""
    environ = os.environ if environ is None else environ
    layer = read_variables({k: v for k, v in environ.items() if k in _STORE_VARIABLES})
    named = layer.values.get("models", {}).get("stores")
    return tuple(map(Path, named)) if named else (HostEnvironment.read(environ).state_directory,)


def _machine_defaults(environ: Mapping[str, str]) -> Layer:
    layer = Layer()
    host = HostEnvironment.read(environ)
    origin = Origin(OriginKind.DEFAULT, host.state_origin)
    layer.put("models", "stores", [str(host.state_directory)], origin)
    return layer


def _with_admin_addresses(config: Config, environ: Mapping[str, str]) -> Config:
    """Fill in the default of `server.admin_listen`, which depends on the other addresses."""
    server = config.server
    if server.admin_listen:
        return config
    if all(Address.parse(address).is_loopback for address in server.listen):
        admin = server.listen
    else:
        admin = (f"unix:{HostEnvironment.read(environ).runtime_directory / _ADMIN_SOCKET}",)
    return config.model_copy(update={"server": server.model_copy(update={"admin_listen": admin})})


def _check_layer(layer: Layer) -> Iterator[Problem]:
    yield from layer.problems
    try:
        Config.model_validate(layer.values)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            yield _describe(details, layer)


def _describe(details: ErrorDetails, layer: Layer) -> Problem:
    """Turn an error of pydantic into place, key, value and what would be right."""
    path = details["loc"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]
    origin = layer.origins.get(".".join(map(str, path[:2])), DEFAULT)
    where = origin.name or str(origin)
    info = _find_field(path)
    if details["type"] == "extra_forbidden":
        return Problem(where, "unknown key", key)
    value = "(secret)" if info and extra(info)["is_secret"] else repr(details["input"])
    if details["type"] == "value_error":
        reason = str(details["ctx"]["error"])
    else:
        reason = f"must be {describe_range(info)}" if info else details["msg"]
    return Problem(where, reason, key, value)


def _find_field(path: tuple[int | str, ...]) -> FieldInfo | None:
    """Return the setting that a location of pydantic is in: the deepest one on the way."""
    table: Any = Config
    found: FieldInfo | None = None
    for part in path:
        fields = getattr(table, "model_fields", {})
        if part in fields:
            info = fields[part]
            found = info if info.json_schema_extra else found
            arguments = typing.get_args(info.annotation)
            table = arguments[-1] if arguments else info.annotation
    return found


def _check_whole(loaded: LoadedConfig, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Check what takes more than one value to see."""
    config = loaded.config

    def problem(key: str, value: object, reason: str) -> Problem:
        origin = loaded.origin(key)
        return Problem(origin.name or str(origin), reason, key, repr(value))

    for key in ("listen", "admin_listen"):
        for address in map(Address.parse, getattr(config.server, key)):
            if not (address.is_unix or address.is_loopback or config.server.insecure):
                yield problem(f"server.{key}", str(address), _UNPROTECTED)
    num_rows = config.scheduler.max_running or config.models.num_slots
    if num_rows > config.scheduler.step_token_budget:
        key = "scheduler.max_running" if config.scheduler.max_running else "models.num_slots"
        budget = config.scheduler.step_token_budget
        reason = (
            f"must be at most scheduler.step_token_budget ({budget}): a step gives each one a token"
        )
        yield problem(key, num_rows, reason)
    try:
        make_plan(config.telemetry.to_options(), environ)
    except InvalidTelemetryOption as error:
        if error.name.startswith("telemetry."):
            yield problem(error.name, error.value, f"must be {error.allowed}")
        else:
            yield Problem("", f"must be {error.allowed}", error.name, repr(error.value))
