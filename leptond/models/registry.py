"""The models that the daemon can serve: found, loaded, leased, evicted, unloaded.

Called by the server on the event loop (quick verbs) and by loader threads (one per load or
unload). Whoever waits gets a `concurrent.futures.Future`; `leptond.streaming` awaits it.

I1  A name is resolved anew for every request: an import shows without a restart.
I2  After `close` no model is loaded and no loader thread is left.
I3  What leaves the process names no path: errors of a load tell files from the version's directory
    on, and errors that are not ours are told by the log only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum

from leptond.backend import Progress
from leptond.errors import (
    LeptondError,
    ModelFailed,
    ModelLoading,
    ModelNotFound,
    ShuttingDown,
)
from leptond.models.catalogue import Catalogue
from leptond.models.lifecycle import ModelEntry, ModelLease
from leptond.models.names import ModelName
from leptond.models.serving import ModelLoader, ServedModel
from leptond.models.store import Store, StoredVariant
from leptond.types import ModelDescription, ModelState, Task

__all__ = ["LoadPolicy", "ModelRegistry"]

_LOG = logging.getLogger(__name__)
_LOADING_RETRY_S = 1.0

StateListener = Callable[[str, ModelState], object]


class LoadPolicy(StrEnum):
    """When a model that was not preloaded is loaded."""

    ON_DEMAND = "on_demand"
    MANUAL = "manual"


@dataclass(slots=True)
class _Loading:
    """A load in progress: who does it and who wants to hear of it."""

    thread: threading.Thread | None = None
    listeners: list[Progress] = field(default_factory=list)


class ModelRegistry:
    """Owner of every model's life.

    Args:
        store: looked at again when a name is unknown and by `describe_all`.
        fixed: variants that are on no disk, such as the fake engine's.
    """

    def __init__(
        self,
        store: Store,
        loader: ModelLoader,
        *,
        policy: LoadPolicy = LoadPolicy.ON_DEMAND,
        fixed: tuple[StoredVariant, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loader = loader
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._loading_lock = threading.Lock()
        self._loading: dict[str, _Loading] = {}
        self._unloading: dict[str, Future[None]] = {}
        self._threads: set[threading.Thread] = set()
        self._listeners: list[StateListener] = []
        self._is_draining = False
        self._catalogue = Catalogue(store, loader, fixed, self._changed, clock)

    # ------------------------------------------------------------------ looking

    def describe_all(self) -> list[ModelDescription]:
        """Every variant of every model, after a fresh look at the store; sorted by name."""
        self._catalogue.refresh()
        return [self._catalogue.describe(entry) for entry in self._catalogue.entries()]

    def describe(self, name: str) -> ModelDescription:
        """One variant, after a fresh look at its model in the store; not on the event loop.

        Raises:
            ModelNotFound: the store has no such model and no such variant is loaded.
        """
        self._catalogue.look_again(ModelName.parse(name).model)
        return self._catalogue.describe(self._catalogue.find(name))

    def fitting(self, *ways: frozenset[Task]) -> list[str]:
        """Names of the models whose default variants answer all tasks of one of `ways`.

        Looks into the store only when a model came or went; reads files then.
        """
        self._catalogue.refresh_if_changed()
        return [
            entry.variant.model
            for entry in self._catalogue.defaults()
            if any(entry.variant.tasks.issuperset(way) for way in ways)
        ]

    def full_name(self, name: str) -> str:
        """The `model:variant` that a name means; cheaper than `describe`.

        Raises:
            ModelNotFound: no such model or variant.
        """
        return self._catalogue.find(name).variant.name

    def state(self, name: str) -> ModelState:
        """Where one variant is in its life; cheaper than `describe`. Raises `ModelNotFound`."""
        return self._catalogue.find(name).state

    def names(self) -> list[str]:
        """Every name that a caller may use, as far as it is known without a look at the store."""
        return self._catalogue.names()

    def loaded(self) -> list[ServedModel]:
        """The models that are READY, without a lease: for load reports."""
        entries = self._catalogue.entries()
        return [model for entry in entries if (model := entry.model) is not None]

    def watch(self, listener: StateListener) -> Callable[[], None]:
        """Call `listener(full_name, state)` on every change, on the thread that makes it.

        Returns the function that ends it; it may be called again.
        """
        with self._lock:
            self._listeners.append(listener)

        def unwatch() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return unwatch

    # ------------------------------------------------------------------ serving

    def try_acquire(self, name: str) -> ModelLease | None:
        """A lease at once when the model is READY, else None. Raises `ModelNotFound`."""
        self._refuse_when_draining()
        return self._catalogue.find(name).lease()

    def acquire(self, name: str) -> Future[ModelLease]:
        """A lease, after loading the model when the policy allows that.

        The future raises what the load raised. Whoever no longer wants it cancels it; a lease
        that came too late is released here.

        Raises:
            ModelNotFound, ModelFailed, ShuttingDown: at once.
            ModelLoading: the policy is `manual` and nobody loads it.
        """
        entry = self._catalogue.find(name)
        self._refuse_when_draining()
        answer: Future[ModelLease] = Future()
        if (lease := entry.lease()) is not None:
            answer.set_result(lease)
            return answer
        if entry.state is ModelState.FAILED:
            raise _failed(entry.variant.name, entry.reason)
        if self._policy is LoadPolicy.MANUAL and entry.state is not ModelState.LOADING:
            msg = f"model {entry.variant.name} is not loaded, and models are loaded by hand only"
            raise ModelLoading(msg, retry_after_s=_LOADING_RETRY_S)
        self._start_load(entry).add_done_callback(lambda load: _hand_over(load, entry, answer))
        return answer

    # ------------------------------------------------------------------ managing

    def load(self, name: str, on_progress: Progress | None = None) -> Future[ServedModel]:
        """Load a model, or join the load in progress; a READY one is done at once.

        `on_progress` is called on the loader thread. A FAILED model is tried again, unless its
        own files are damaged: then `ModelFailed` says so.
        """
        self._refuse_when_draining()
        entry = self._catalogue.find(name)
        if entry.variant.fault:
            raise _failed(entry.variant.name, entry.variant.fault)
        return self._start_load(entry, on_progress)

    def unload(self, name: str) -> Future[None]:
        """Unload a model once its running requests are done; nothing to do when not READY.

        When the future ends, the model can be loaded again. Those who ask while it is being
        unloaded share that unload.
        """
        entry = self._catalogue.find(name)
        with self._loading_lock:
            begun = entry.begin_unload()
            done = Future() if begun else self._unloading.get(entry.variant.name, _nothing())
            if begun is not None:
                self._unloading[entry.variant.name] = done
        if begun is None:
            return done
        model, drained = begun

        def work() -> None:
            try:
                drained.result()  # calls that use it may still bring it more
                model.close()
            except BaseException as error:
                _LOG.exception("unload failed model=%s", model.name)
                failure: BaseException | None = error
            else:
                _LOG.info("unloaded model=%s", model.name)
                failure = None
            with self._loading_lock:
                del self._unloading[entry.variant.name]
                entry.end_unload()
            self._catalogue.look_again(entry.variant.model)  # it may have been removed meanwhile
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(failure)

        self._spawn(f"unload-{model.name}", work)
        return done

    def drain(self) -> None:
        """Refuse new leases and loads from now on; what runs goes on."""
        self._is_draining = True

    def close(self, deadline_s: float) -> bool:
        """Unload everything; False when something did not end within `deadline_s`."""
        self.drain()
        ends = self._clock() + deadline_s
        self._join_threads(ends)  # loads in progress end first
        unloads = [
            self.unload(entry.variant.name)
            for entry in self._catalogue.entries()
            if entry.state is ModelState.READY
        ]
        return self._join_threads(ends) and not any(unload.exception() for unload in unloads)

    # ------------------------------------------------------------------ inside

    def _refuse_when_draining(self) -> None:
        if self._is_draining:
            raise ShuttingDown("the daemon is shutting down")

    def _start_load(
        self, entry: ModelEntry, listener: Progress | None = None
    ) -> Future[ServedModel]:
        name = entry.variant.name
        with self._loading_lock:
            load, is_mine = entry.begin_load()
            loading = self._loading.get(name)
            if is_mine:
                loading = self._loading[name] = _Loading()
            if loading is not None and listener is not None:
                loading.listeners.append(listener)
        if is_mine:
            self._spawn(f"load-{name}", lambda: self._load(entry))
        return load

    def _load(self, entry: ModelEntry) -> None:
        """On the loader thread: load, and tell everyone how it went."""
        variant = entry.variant
        started = self._clock()

        def progress(stage: str, fraction: float) -> None:
            with self._loading_lock:
                listeners = list(self._loading[variant.name].listeners)
            for listener in listeners:
                listener(stage, fraction)

        try:
            _require_files(variant)
            self._make_room(variant)
            outcome: ServedModel | BaseException = self._loader.load(
                variant, progress, lambda error: self._on_crash(variant.name, error)
            )
        except LeptondError as error:
            _LOG.warning("load failed model=%s reason=%s", variant.name, error)
            outcome = _without_paths(error, variant)
        except BaseException as error:
            _LOG.exception("load failed model=%s", variant.name)
            outcome = error
        else:
            _LOG.info("loaded model=%s seconds=%.2f", variant.name, self._clock() - started)
        with self._loading_lock:
            del self._loading[variant.name]
            entry.end_load(outcome)
        if isinstance(outcome, ModelNotFound):
            self._catalogue.look_again(variant.model)

    def _make_room(self, variant: StoredVariant) -> None:
        """Unload idle models, least recently used first, until this one fits."""
        while not self._loader.fits(variant):
            idle = [entry for entry in self._catalogue.entries() if entry.is_idle]
            if not idle:
                return  # the load itself says what is missing
            victim = min(idle, key=lambda entry: entry.last_used_s)
            _LOG.info("evict model=%s for=%s", victim.variant.name, variant.name)
            self.unload(victim.variant.name).result()

    def _on_crash(self, name: str, error: LeptondError) -> None:
        """A worker died by itself: let the model go, so that the next request loads it anew."""
        _LOG.error("worker died model=%s reason=%s", name, error)
        self.unload(name)

    def _changed(self, name: str, state: ModelState) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(name, state)

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _join_threads(self, ends: float) -> bool:
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, ends - self._clock()))
        return not any(thread.is_alive() for thread in threads)


def _nothing() -> Future[None]:
    done: Future[None] = Future()
    done.set_result(None)
    return done


def _failed(name: str, reason: str) -> ModelFailed:
    return ModelFailed(f"model {name} could not be loaded: {reason}")


def _require_files(variant: StoredVariant) -> None:
    if not variant.directory.is_dir():
        raise ModelNotFound(f"model {variant.name} is no longer in the store", field="model")


def _without_paths(error: LeptondError, variant: StoredVariant) -> LeptondError:
    """The error as callers may read it (I3); one that they never read stays as it is."""
    message = variant.without_paths(error.message)
    if not error.is_public or message == error.message:
        return error
    told = type(error)(
        message, field=error.field, retry_after_s=error.retry_after_s, details=error.details
    )
    told.__cause__ = error
    return told


def _hand_over(load: Future[ServedModel], entry: ModelEntry, answer: Future[ModelLease]) -> None:
    """Turn a finished load into a lease for one waiter; on the loader thread."""
    error = load.exception()
    lease = entry.lease() if error is None else None
    if not answer.set_running_or_notify_cancel():
        if lease is not None:
            lease.release()
        return
    if error is not None:
        answer.set_exception(error)
    elif lease is not None:
        answer.set_result(lease)
    else:  # unloaded again in between
        msg = f"model {entry.variant.name} was unloaded while the call waited for it"
        answer.set_exception(ModelLoading(msg, retry_after_s=_LOADING_RETRY_S))
