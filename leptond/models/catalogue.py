"""Which models there are: what the store said last, by every name that a caller may use.

Called by the registry only, from any thread.

I1  A loaded variant stays as it is until it is unloaded, whatever the store says meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from leptond.errors import LeptondError, ModelNotFound
from leptond.models.lifecycle import ModelEntry
from leptond.models.names import ModelName
from leptond.models.serving import ModelLoader
from leptond.models.store import Store, StoredModel, StoredVariant
from leptond.types import ModelDescription, ModelState

__all__ = ["Catalogue"]


class Catalogue:
    """Entries by full name.

    Args:
        store: looked at again when a name is unknown and by `refresh`.
        loader: estimates what a variant would take.
        fixed: variants that are on no disk, such as the fake engine's.
        on_state: told of every change, with the full name.
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
        for variant in fixed:
            alone = {variant.variant: variant}
            self._adopt(StoredModel(variant.model, variant.version, variant.variant, alone))

    def refresh(self) -> None:
        """Look at the store again."""
        for model in self._store.scan().values():
            self._adopt(model)

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
        if (stored := self._store.find(parsed.model)) is not None:
            self._adopt(stored)
        if (entry := self._lookup(parsed)) is not None:
            return entry
        known = [key for key in self.names() if key.startswith(f"{parsed.model}:")]
        hint = f"; it has {', '.join(known)}" if known else ""
        raise ModelNotFound(f"no model {str(parsed)!r} in the store{hint}", field="model")

    def describe(self, entry: ModelEntry) -> ModelDescription:
        """What is known of one variant."""
        variant = entry.variant
        try:
            estimate = self._loader.needed_bytes(variant)
            reason = entry.reason
        except LeptondError as error:
            estimate, reason = 0, entry.reason or str(error)
        return ModelDescription(
            name=variant.name,
            model=variant.model,
            variant=variant.variant,
            version=variant.version,
            backend=variant.backend,
            precision=variant.precision,
            is_default=self._defaults.get(variant.model) == variant.name,
            state=entry.state,
            state_reason=reason,
            tasks=variant.tasks,
            max_context_tokens=int(variant.facts.get("max_context_tokens", 0)),
            estimated_bytes=estimate,
            metadata=variant.facts,
        )

    def _lookup(self, name: ModelName) -> ModelEntry | None:
        full = str(name) if name.variant else self._defaults.get(name.model)
        return self._entries.get(full) if full else None

    def _adopt(self, stored: StoredModel) -> None:
        """Take over what the store says (I1)."""
        fresh: list[str] = []
        with self._lock:
            for variant in stored.variants.values():
                entry = self._entries.get(variant.name)
                is_replaceable = entry is None or (
                    entry.variant != variant
                    and entry.state in (ModelState.AVAILABLE, ModelState.FAILED)
                )
                if is_replaceable:
                    self._entries[variant.name] = ModelEntry(variant, self._on_state, self._clock)
                    fresh.append(variant.name)
            self._defaults[stored.name] = f"{stored.name}:{stored.default_variant}"
        for name in fresh:
            self._on_state(name, ModelState.AVAILABLE)
