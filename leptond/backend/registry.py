"""Finds the engines of this environment and says why the others cannot be used.

A plug-in is an entry point of the group `leptond.backends` whose object is a `Backend`; the fake
engine is built in. Called by the composition root, by loader threads and by `leptond backends`.

I1  Nothing of a plug-in is imported before it is asked for by name, or all are listed.
I2  A plug-in that is broken, or whose engine is absent, never hides another.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points

from leptond.backend.spi import API_VERSION, Backend
from leptond.errors import BackendUnavailable

__all__ = ["GROUP", "BackendStatus", "find_conflicts", "get_backend", "list_backends"]

GROUP = "leptond.backends"

_LOG = logging.getLogger(__name__)
_BUILT_IN = (EntryPoint("fake", "leptond.backend.fake:backend", GROUP),)
# Distributions that install the same files: whichever came last is the one that is imported.
_EXCLUSIVE: Mapping[str, tuple[str, ...]] = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu")}
_MEMBERS = ("api_version", "describe", "estimate_bytes", "importer", "load", "name")


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """What is known of one plug-in.

    Attributes:
        provider: the distribution that brought it, with its version.
        reason: why it cannot be used; "" when it can.
        warning: what an operator should know although it can be used.
        details: what the engine says of itself.
    """

    name: str
    provider: str
    reason: str = ""
    warning: str = ""
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_usable(self) -> bool:
        """Whether `get_backend` would give it."""
        return not self.reason


def list_backends(plugins: Iterable[EntryPoint] | None = None) -> list[BackendStatus]:
    """Import every plug-in and report each, by name; raises nothing.

    Args:
        plugins: entry points to look at in place of those installed, for tests.
    """
    found = _by_name(plugins)
    statuses = []
    for name, candidates in sorted(found.items()):
        provider = ", ".join(_provider(candidate) for candidate in candidates)
        warning = find_conflicts(name)
        try:
            _, details = _open(candidates)
        except BackendUnavailable as error:
            statuses.append(BackendStatus(name, provider, reason=error.message, warning=warning))
        else:
            statuses.append(BackendStatus(name, provider, warning=warning, details=details))
    return statuses


def get_backend(name: str, plugins: Iterable[EntryPoint] | None = None) -> Backend:
    """Import the plug-in `name` and no other, and make sure that its engine is there.

    Args:
        name: the engine's name, as a variant on disk gives it.
        plugins: entry points to look at in place of those installed, for tests.

    Raises:
        BackendUnavailable: saying what to install, or what is broken.
    """
    found = _by_name(plugins)
    if name not in found:
        known = ", ".join(sorted(found))
        raise BackendUnavailable(
            f"no backend plug-in is called {name!r}; installed: {known}", details={"backend": name}
        )
    try:
        backend, _ = _open(found[name])
    except BackendUnavailable as error:
        raise BackendUnavailable(
            f"backend {name} cannot be used: {error.message}", details={"backend": name}
        ) from error
    if warning := find_conflicts(name):
        _LOG.warning("backend_conflict backend=%s reason=%r", name, warning)
    return backend


def find_conflicts(name: str, installed: Iterable[Distribution] | None = None) -> str:
    """Say which distributions of the engine `name` overwrite each other's files; "" when none.

    Read from the metadata of what is installed: nothing is imported.
    """
    rivals = _EXCLUSIVE.get(name)
    if rivals is None:
        return ""
    present = {
        str(dist.metadata["Name"]).lower().replace("_", "-"): dist.version
        for dist in (distributions() if installed is None else installed)
    }
    both = [f"{rival} {present[rival]}" for rival in rivals if rival in present]
    if len(both) < 2:  # noqa: PLR2004 - one alone has no rival
        return ""
    return f"{' and '.join(both)} install the same files: uninstall all and install one again"


def _by_name(plugins: Iterable[EntryPoint] | None) -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for plugin in (*_BUILT_IN, *(entry_points(group=GROUP) if plugins is None else plugins)):
        found.setdefault(plugin.name, []).append(plugin)
    return found


def _open(candidates: list[EntryPoint]) -> tuple[Backend, Mapping[str, str]]:
    """The backend and its description. Raises `BackendUnavailable`, with the bare reason."""
    if len(candidates) > 1:
        providers = " and ".join(_provider(candidate) for candidate in candidates)
        raise BackendUnavailable(f"{providers} both bring a plug-in of that name")
    (plugin,) = candidates
    backend = _import(plugin)
    return backend, _describe(backend, plugin)


def _import(plugin: EntryPoint) -> Backend:
    try:
        backend = plugin.load()
    except ImportError as error:
        raise BackendUnavailable(_missing(plugin, error)) from error
    except Exception as error:  # a stranger's module may raise anything (I2)
        raise BackendUnavailable(
            f"importing {plugin.value} failed: {type(error).__name__}: {error}"
        ) from error
    if absent := [member for member in _MEMBERS if not hasattr(backend, member)]:
        raise BackendUnavailable(f"{plugin.value} is no Backend: it lacks {', '.join(absent)}")
    _check_version(backend)
    if backend.name != plugin.name:
        raise BackendUnavailable(f"{plugin.value} calls itself {backend.name!r}")
    return backend  # type: ignore[no-any-return]  # an entry point loads Any; checked above


def _check_version(backend: Backend) -> None:
    """The same major version, and no newer minor one than ours."""
    theirs = tuple(backend.api_version)
    if theirs[:1] != API_VERSION[:1] or theirs > API_VERSION:
        raise BackendUnavailable(
            f"it was written for plug-in API {_dotted(theirs)} and this leptond has "
            f"{_dotted(API_VERSION)}: install versions that fit each other"
        )


def _describe(backend: Backend, plugin: EntryPoint) -> Mapping[str, str]:
    """What the engine says of itself: the first moment at which it has to be there."""
    try:
        return backend.describe()
    except BackendUnavailable:
        raise
    except ImportError as error:
        raise BackendUnavailable(_missing(plugin, error)) from error
    except Exception as error:  # a stranger's engine may raise anything (I2)
        raise BackendUnavailable(
            f"its engine does not start: {type(error).__name__}: {error}"
        ) from error


def _missing(plugin: EntryPoint, error: ImportError) -> str:
    """What to install. The extra of an engine has the plug-in's name."""
    extras = (plugin.dist.metadata.get_all("Provides-Extra") or ()) if plugin.dist else ()
    remedy = ""
    if plugin.dist and plugin.name in extras:
        remedy = f"; install it with: pip install '{plugin.dist.name}[{plugin.name}]'"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"module {error.name} is not installed{remedy}"
    return f"it cannot be imported ({error}){remedy}"


def _provider(plugin: EntryPoint) -> str:
    return f"{plugin.dist.name} {plugin.dist.version}" if plugin.dist else "leptond (built in)"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
