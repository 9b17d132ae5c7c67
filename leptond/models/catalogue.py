"""Which models there are: what the store said last, by every name that a caller may use.

Called by the registry only, from any thread.

I1  A loaded variant stays as it is until it is unloaded, whatever the store says meanwhile.
I2  A name that is not there is looked for on disk at most once a second, unless models came or
    went, so that callers who ask for it on the event loop cost it next to nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from leptond.errors import LeptondError, ModelNotFound
from leptond.models.lifecycle import SEE_LOG, ModelEntry
from leptond.models.names import ModelName
from leptond.models.serving import ModelLoader
from leptond.models.store import Store, StoredModel, StoredVariant
from leptond.types import ModelDescription, ModelState

__all__ = ["Catalogue"]

_LOG = logging.getLogger(__name__)
_MISS_S = 1.0
_MAX_MISSES = 1024  # names are the callers' to choose


class Catalogue:
    """Entries by full name.

    Args:
        store: looked at again when a name is unknown and by `refresh`.
        loader: estimates what a variant would take.
        fixed: variants that are on no disk, such as the fake engine's.
        on_state: told of every change, with the full name; of a variant that is gone, FAILED.
    """

    def __init__(
        self,
        store: Store,
        loader: ModelLoader,
        fixed: Iterable[StoredVariant],
        on_state: Callable[[str, ModelState], None],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._loader = loader
        self._on_state = on_state
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, ModelEntry] = {}
        self._defaults: dict[str, str] = {}
        self._misses: dict[str, tuple[float, tuple[int, ...]]] = {}
        self._seen: tuple[int, ...] | None = None  # the store's stamp at the last whole look
        self._fixed: frozenset[str] = frozenset()
        for variant in fixed:
            alone = {variant.variant: variant}
            self._adopt(StoredModel(variant.model, variant.version, variant.variant, alone))
        self._fixed = frozenset(self._defaults)

    def refresh(self) -> None:
        """Look at the whole store again; reads files."""
        stored = self._store.scan()
        with self._lock:
            known = {entry.variant.model for entry in self._entries.values()}
        for name in known - stored.keys():
            self._forget(name)
        for model in stored.values():
            self._adopt(model)

    def refresh_if_changed(self) -> None:
        """The same when a model came or went since; else one look at each directory."""
        stamp = self._store.stamp()
        if stamp != self._seen:
            self.refresh()
            self._seen = stamp

    def defaults(self) -> list[ModelEntry]:
        """The default variant of every model, by name."""
        with self._lock:
            names = [name for _, name in sorted(self._defaults.items())]
            return [self._entries[name] for name in names if name in self._entries]

    def look_again(self, model: str) -> None:
        """Look at one model in the store again; reads files."""
        stored = self._store.find(model)
        if stored is None:
            self._forget(model)
        else:
            self._adopt(stored)

    def entries(self) -> list[ModelEntry]:
        """Every entry, by full name."""
        with self._lock:
            return sorted(self._entries.values(), key=lambda entry: entry.variant.name)

    def names(self) -> list[str]:
        """Full names, and those of models, which mean their defaults."""
        with self._lock:
            return sorted({*self._entries, *self._defaults})

    def find(self, name: str) -> ModelEntry:
        """The entry that a caller means. Raises `InvalidRequest`, `ModelNotFound`."""
        parsed = ModelName.parse(name)
        if (entry := self._lookup(parsed)) is not None:
            return entry
        stamp = self._store.stamp()  # before the look, so that no import falls in between
        if not self._is_known_miss(str(parsed), stamp):
            self.look_again(parsed.model)
            if (entry := self._lookup(parsed)) is not None:
                return entry
            self._remember_miss(str(parsed), stamp)
        known = [key for key in self.names() if key.startswith(f"{parsed.model}:")]
        hint = f"; it has {', '.join(known)}" if known else ""
        raise ModelNotFound(f"no model {str(parsed)!r} in the store{hint}", field="model")

    def describe(self, entry: ModelEntry) -> ModelDescription:
        """What is known of one variant; reads files.

        `metadata` holds nothing of where files are: `source` is a default's name or a file's.
        """
        variant = entry.variant
        context, needed_bytes, reason = self._plan(variant)
        if (model := entry.model) is not None:
            context, needed_bytes = model.max_context_tokens, model.reserved_bytes
        return ModelDescription(
            name=variant.name,
            model=variant.model,
            variant=variant.variant,
            version=variant.version,
            backend=variant.backend,
            precision=variant.precision,
            is_default=self._defaults.get(variant.model) == variant.name,
            state=entry.state,
            state_reason=entry.reason or reason,
            tasks=variant.tasks,
            max_context_tokens=context,
            estimated_bytes=needed_bytes,
            metadata=_metadata(variant),
        )

    def _plan(self, variant: StoredVariant) -> tuple[int, int, str]:
        """Context in tokens, bytes of memory, and why these are not known."""
        if variant.fault:
            return 0, 0, variant.fault
        try:
            plan = self._loader.plan(variant)
        except LeptondError as error:
            return 0, 0, variant.without_paths(str(error))
        except Exception:  # an engine's reading of damaged files: the others are still listed
            _LOG.exception("estimate failed model=%s", variant.name)
            return 0, 0, SEE_LOG
        return plan.max_context_tokens, plan.needed_bytes, ""

    def _is_known_miss(self, name: str, stamp: tuple[int, ...]) -> bool:
        with self._lock:
            when, seen = self._misses.get(name, (-_MISS_S, ()))
            return seen == stamp and self._clock() - when < _MISS_S

    def _remember_miss(self, name: str, stamp: tuple[int, ...]) -> None:
        with self._lock:
            if len(self._misses) >= _MAX_MISSES:
                self._misses.clear()
            self._misses[name] = (self._clock(), stamp)

    def _lookup(self, name: ModelName) -> ModelEntry | None:
        full = str(name) if name.variant else self._defaults.get(name.model)
        return self._entries.get(full) if full else None

    def _adopt(self, stored: StoredModel) -> None:
        """Take over what the store says (I1)."""
        fresh: list[str] = []
        whole = {one.name for one in stored.variants.values() if not one.fault}
        with self._lock:
            if stored.name in self._fixed:
                return
            for variant in stored.variants.values():
                entry = self._entries.get(variant.name)
                if entry is None or (entry.variant != variant and entry.retire()):
                    self._entries[variant.name] = ModelEntry(variant, self._on_state, self._clock)
                    fresh.append(variant.name)
                    self._misses.pop(variant.name, None)
            self._misses.pop(stored.name, None)
            self._defaults[stored.name] = f"{stored.name}:{stored.default_variant}"
        for name in fresh:
            self._on_state(name, ModelState.AVAILABLE if name in whole else ModelState.FAILED)
        self._forget(stored.name, kept=stored.variants)

    def _forget(self, model: str, kept: Iterable[str] = ()) -> None:
        """Let go of a model's variants that the store lost; loaded ones stay (I1)."""
        gone: list[str] = []
        with self._lock:
            if model in self._fixed:
                return
            for name, entry in list(self._entries.items()):
                variant = entry.variant
                if variant.model == model and variant.variant not in kept and entry.retire():
                    del self._entries[name]
                    gone.append(name)
            if self._defaults.get(model) in gone:
                del self._defaults[model]
        for name in gone:
            _LOG.info("gone model=%s", name)
            self._on_state(name, ModelState.FAILED)


def _metadata(variant: StoredVariant) -> Mapping[str, Any]:
    """The variant's facts, and what can be seen of its files."""
    source = str(variant.facts.get("source", ""))
    is_path = not source.startswith("default:")
    return {
        **variant.facts,
        "source": Path(source).name if is_path else source,
        "disk_bytes": sum(
            file.stat().st_size for file in variant.directory.rglob("*") if file.is_file()
        ),
    }
