"""The life of one model variant, and the leases that hold it.

        ┌──────────────── unload done ◄── UNLOADING ◄─┐
        ▼                                             │ last lease released
    AVAILABLE ── load ──► LOADING ── ok ──► READY ── unload
        ▲           ▲        ├── error ──► FAILED ── load again ──► LOADING
        └───────────│────────┘ an error that passes, such as too little memory now

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

from leptond.errors import InvariantViolation, LeptondError, ModelFailed, ModelLoading
from leptond.types import ModelState

if TYPE_CHECKING:
    from leptond.models.serving import ServedModel
    from leptond.models.store import StoredVariant

__all__ = ["SEE_LOG", "ModelEntry", "ModelLease"]

SEE_LOG = "the daemon's log says why"  # what callers hear of errors that are not theirs to read
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
        self.reason = variant.fault
        self.last_used_s = clock()
        self._on_state = on_state
        self._clock = clock
        self._lock = threading.Lock()
        self._state = ModelState.FAILED if variant.fault else ModelState.AVAILABLE
        self._is_retired = False
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
            ModelLoading: it is on its way out, or was changed in the store meanwhile; a moment
                later it can be loaded.
        """
        with self._lock:
            if self._is_retired:
                msg = f"model {self.variant.name} was changed in the store; try again"
                raise ModelLoading(msg, retry_after_s=_UNLOAD_RETRY_S)
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
        """LOADING → READY, FAILED or, after an error that passes, AVAILABLE; wakes who waits.

        The reason of an error stays until the next load begins. It is shown to callers.
        """
        with self._lock:
            load = self._load
            if load is None or self._state is not ModelState.LOADING:
                msg = f"load of {self.variant.name} ended in state {self._state}"
                raise InvariantViolation(msg)
            self.last_used_s = self._clock()
            if isinstance(outcome, BaseException):
                self._state, self.reason = _after(outcome)
                self._load = None
            else:
                self._state = ModelState.READY
                self._model = outcome
        self._on_state(self.variant.name, self._state)
        if isinstance(outcome, BaseException):
            load.set_exception(_as_ours(self.variant.name, outcome))
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

    def retire(self) -> bool:
        """Take it out of use for ever, when it is AVAILABLE or FAILED; False when it is not.

        For a variant that the store has changed or lost. After it no load begins.
        """
        with self._lock:
            if self._state in (ModelState.AVAILABLE, ModelState.FAILED):
                self._is_retired = True
            return self._is_retired


def _after(error: BaseException) -> tuple[ModelState, str]:
    """The state after a load that raised, and the reason as callers may read it."""
    if not isinstance(error, LeptondError):
        return ModelState.FAILED, SEE_LOG
    state = ModelState.AVAILABLE if error.retryable else ModelState.FAILED
    return state, error.message if error.is_public else SEE_LOG


def _as_ours(name: str, error: BaseException) -> LeptondError:
    """What those who wait for the load are told."""
    if isinstance(error, LeptondError):
        return error
    ours = ModelFailed(f"model {name} could not be loaded: {SEE_LOG}")
    ours.__cause__ = error
    return ours
