"""The life of one model variant, and the leases that hold it.

        ┌──────────────── unload done ◄── UNLOADING ◄─┐
        ▼                                             │ last lease released
    AVAILABLE ── load ──► LOADING ── ok ──► READY ── unload
                    ▲        └── error ──► FAILED ── load again ──► LOADING

Called from any thread; every transition happens under the entry's lock, callbacks outside it.

I1  A READY model is closed only when its last lease was released.
I2  Each lease is released exactly once; a second release is a bug and says so.
I3  Any number of callers that want a model that is being loaded share that one load.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from leptond.errors import InvariantViolation, ModelLoading
from leptond.types import ModelState

if TYPE_CHECKING:
    from leptond.models.serving import ServedModel
    from leptond.models.store import StoredVariant

__all__ = ["ModelEntry", "ModelLease"]

_UNLOAD_RETRY_S = 1.0  # an unload waits for running requests; most end sooner than a retry


class ModelLease:
    """The right to use a loaded model; while it is held the model stays."""

    __slots__ = ("_entry", "model")

    def __init__(self, entry: ModelEntry, model: ServedModel) -> None:
        self.model = model
        self._entry: ModelEntry | None = entry

    def release(self) -> None:
        """Give the model back. Exactly once."""
        entry, self._entry = self._entry, None
        if entry is None:
            msg = f"lease of {self.model.name} released twice"
            raise InvariantViolation(msg)
        entry.release_lease()


class ModelEntry:
    """State of one variant. Only `leptond.models.registry` drives it."""

    def __init__(
        self,
        variant: StoredVariant,
        on_state: Callable[[str, ModelState], None],
        clock: Callable[[], float],
    ) -> None:
        self.variant = variant
        self.reason = ""
        self.last_used_s = clock()
        self._on_state = on_state
        self._clock = clock
        self._lock = threading.Lock()
        self._state = ModelState.AVAILABLE
        self._model: ServedModel | None = None
        self._num_leases = 0
        self._load: Future[ServedModel] | None = None
        self._unload: Future[None] | None = None

    @property
    def state(self) -> ModelState:
        """Where it is in its life."""
        return self._state

    @property
    def model(self) -> ServedModel | None:
        """The loaded model while READY, without a lease: to look at, not to use."""
        return self._model

    @property
    def is_idle(self) -> bool:
        """READY and held by nobody."""
        return self._state is ModelState.READY and self._num_leases == 0

    def lease(self) -> ModelLease | None:
        """A lease when the model is READY, else None."""
        with self._lock:
            if self._state is not ModelState.READY or self._model is None:
                return None
            self._num_leases += 1
            return ModelLease(self, self._model)

    def release_lease(self) -> None:
        """One lease less; the last one lets a waiting unload go on."""
        with self._lock:
            self._num_leases -= 1
            self.last_used_s = self._clock()
            waiting = self._unload if self._num_leases == 0 else None
        if waiting is not None:
            waiting.set_result(None)

    # ---------------------------------------------------------------- transitions

    def begin_load(self) -> tuple[Future[ServedModel], bool]:
        """The load in progress, and whether the caller is the one who must do it (I3).

        A READY model answers with a finished future.

        Raises:
            ModelLoading: it is on its way out; a moment later it can be loaded again.
        """
        with self._lock:
            if self._load is not None:
                return self._load, False
            if self._state is ModelState.UNLOADING:
                msg = f"model {self.variant.name} is being unloaded; try again"
                raise ModelLoading(msg, retry_after_s=_UNLOAD_RETRY_S)
            self._load = Future()
            self._state = ModelState.LOADING
            self.reason = ""
        self._on_state(self.variant.name, ModelState.LOADING)
        return self._load, True

    def end_load(self, outcome: ServedModel | BaseException) -> None:
        """LOADING → READY or FAILED; wakes everyone who waits for it."""
        failed = isinstance(outcome, BaseException)
        with self._lock:
            load = self._load
            if load is None or self._state is not ModelState.LOADING:
                msg = f"load of {self.variant.name} ended in state {self._state}"
                raise InvariantViolation(msg)
            self._state = ModelState.FAILED if failed else ModelState.READY
            self.last_used_s = self._clock()
            if isinstance(outcome, BaseException):
                self.reason = str(outcome)
                self._load = None
            else:
                self._model = outcome
        self._on_state(self.variant.name, self._state)
        if isinstance(outcome, BaseException):
            load.set_exception(outcome)
        else:
            load.set_result(outcome)

    def begin_unload(self) -> tuple[ServedModel, Future[None]] | None:
        """READY → UNLOADING; the future ends when no lease is left. None when not READY."""
        with self._lock:
            if self._state is not ModelState.READY or self._model is None:
                return None
            model, self._model, self._load = self._model, None, None
            self._state = ModelState.UNLOADING
            drained: Future[None] = Future()
            self._unload = drained
            is_drained = self._num_leases == 0
        self._on_state(self.variant.name, ModelState.UNLOADING)
        if is_drained:
            drained.set_result(None)
        return model, drained

    def end_unload(self) -> None:
        """UNLOADING → AVAILABLE."""
        with self._lock:
            self._state = ModelState.AVAILABLE
            self._unload = None
        self._on_state(self.variant.name, ModelState.AVAILABLE)
