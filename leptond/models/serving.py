"""A loaded model, ready to serve, and how it is put together.

The loader runs on a loader thread, one per load: it reserves memory, has the backend load the
weights, reads the text assets, and starts the scheduler, whose worker thread owns the session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from leptond.backend import (
    Backend,
    Capabilities,
    MemoryEstimate,
    Model,
    ModelSource,
    Progress,
    SessionKind,
    SessionOptions,
)
from leptond.errors import BackendCrashed, UnsupportedCapability
from leptond.memory import MemoryBudget, Reservation
from leptond.models.store import StoredVariant
from leptond.scheduler import ComputeBudget, SchedulerOptions, StepScheduler
from leptond.text import ChatTemplate, Tokenizer

__all__ = ["LoaderOptions", "ModelLoader", "ModelSizes", "ServedModel"]

_WEIGHTS_SHARE = 0.9  # of a load's time that the weights take, roughly: progress is for people
_STOP_DEADLINE_S = 10.0  # a step takes milliseconds; a worker that needs longer is stuck


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """Where one model runs and how much it may take.

    Attributes:
        device: `cpu`, `cuda:0`.
        num_slots: texts that it generates at once.
        max_context_tokens: longest prompt and answer together; 0 is the model's own limit.
        kv_bytes: memory for keys and values; 0 is room for every slot in full.
    """

    device: str = "cpu"
    num_slots: int = 16
    max_context_tokens: int = 0
    kv_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LoaderOptions:
    """How models are loaded.

    Attributes:
        sizes_of: what applies to `model:variant`.
        backend_options: the engines' own tables, by backend name.
        scheduler: bounds of queue and step.
    """

    sizes_of: Callable[[str], ModelSizes] = lambda name: ModelSizes()
    backend_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scheduler: SchedulerOptions = field(default_factory=SchedulerOptions)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Everything that a request needs of one loaded variant; alive while a lease is held."""

    variant: StoredVariant
    capabilities: Capabilities
    tokenizer: Tokenizer
    template: ChatTemplate | None
    scheduler: StepScheduler
    max_context_tokens: int
    _model: Model
    _reservations: tuple[Reservation, ...]

    @property
    def name(self) -> str:
        """`model:variant`."""
        return self.variant.name

    def close(self) -> None:
        """Stop the worker, free the weights, give the memory back. No lease is held any more.

        Raises:
            BackendCrashed: the worker is stuck in native code; its memory stays with it.
        """
        if not self.scheduler.stop(_STOP_DEADLINE_S):
            msg = f"model {self.name}: its worker did not stop within {_STOP_DEADLINE_S:g} s"
            raise BackendCrashed(msg)
        self._model.close()
        for reservation in self._reservations:
            reservation.release()


class ModelLoader:
    """Turns a stored variant into a served model.

    Args:
        flush: wakes the event loop for every stream touched in a step; called by workers.
        find_backend: the backend of a name, or `BackendUnavailable`.
    """

    def __init__(
        self,
        options: LoaderOptions,
        *,
        budget: MemoryBudget,
        compute: ComputeBudget,
        flush: Callable[[], None],
        find_backend: Callable[[str], Backend],
    ) -> None:
        self._options = options
        self._budget = budget
        self._compute = compute
        self._flush = flush
        self._find_backend = find_backend

    def estimate(self, variant: StoredVariant) -> MemoryEstimate:
        """What loading it would take; reads metadata only."""
        backend = self._find_backend(variant.backend)
        return backend.estimate_bytes(self._source(variant), self._session_options(variant))

    def fits(self, variant: StoredVariant) -> bool:
        """Whether the budget has room for it at this moment."""
        return self._budget.can_reserve(self.needed_bytes(variant))

    def needed_bytes(self, variant: StoredVariant) -> int:
        """What `load` will reserve for it."""
        estimate = self.estimate(variant)
        return estimate.weights_bytes + self._kv_bytes(variant, estimate)

    def load(self, variant: StoredVariant, progress: Progress) -> ServedModel:
        """Load one variant; blocks for as long as that takes.

        Raises:
            MemoryBudgetExceeded, BackendUnavailable, UnsupportedCapability, ModelFailed.
        """
        progress("reserve", 0.0)
        backend = self._find_backend(variant.backend)
        estimate = self.estimate(variant)
        reservations = self._reserve(variant, estimate)
        try:
            model = backend.load(
                self._source(variant),
                lambda stage, fraction: progress(stage, fraction * _WEIGHTS_SHARE),
            )
            try:
                return self._serve(variant, model, estimate, reservations, progress)
            except BaseException:
                model.close()
                raise
        except BaseException:
            for reservation in reservations:
                reservation.release()
            raise

    def _serve(
        self,
        variant: StoredVariant,
        model: Model,
        estimate: MemoryEstimate,
        reservations: tuple[Reservation, ...],
        progress: Progress,
    ) -> ServedModel:
        if model.capabilities.kind is not SessionKind.STEP:
            msg = f"model {variant.name} runs in whole calls, which this daemon does not serve yet"
            raise UnsupportedCapability(msg)
        progress("tokenizer", _WEIGHTS_SHARE)
        tokenizer = Tokenizer.load(variant.assets)
        template = ChatTemplate.load(variant.assets, tokenizer)
        session = self._fit(self._session_options(variant), model.capabilities)
        scheduler = StepScheduler(
            variant.name,
            model,
            session,
            tokenizer,
            self._options.scheduler.with_kv_tokens(self._kv_tokens(variant, estimate, session)),
            compute=self._compute,
            flush=self._flush,
        )
        progress("session", 0.95)
        scheduler.start()
        return ServedModel(
            variant=variant,
            capabilities=model.capabilities,
            tokenizer=tokenizer,
            template=template,
            scheduler=scheduler,
            max_context_tokens=session.max_tokens,
            _model=model,
            _reservations=reservations,
        )

    @staticmethod
    def _fit(wanted: SessionOptions, capabilities: Capabilities) -> SessionOptions:
        """What was configured, as far as the model can."""
        most = capabilities.max_context_tokens
        return SessionOptions(
            num_slots=min(wanted.num_slots, capabilities.max_slots),
            max_tokens=min(wanted.max_tokens or most, most),
            num_threads=wanted.num_threads,
        )

    def _reserve(self, variant: StoredVariant, estimate: MemoryEstimate) -> tuple[Reservation, ...]:
        weights = self._budget.reserve(estimate.weights_bytes, variant.name, "weights")
        try:
            kv = self._budget.reserve(self._kv_bytes(variant, estimate), variant.name, "kv")
        except BaseException:
            weights.release()
            raise
        return weights, kv

    def _kv_bytes(self, variant: StoredVariant, estimate: MemoryEstimate) -> int:
        sizes = self._options.sizes_of(variant.name)
        full = estimate.slot_bytes * sizes.num_slots
        return min(full, sizes.kv_bytes or full)

    def _kv_tokens(
        self, variant: StoredVariant, estimate: MemoryEstimate, session: SessionOptions
    ) -> int:
        bytes_per_token = max(1, estimate.slot_bytes // session.max_tokens)
        return self._kv_bytes(variant, estimate) // bytes_per_token

    def _session_options(self, variant: StoredVariant) -> SessionOptions:
        sizes = self._options.sizes_of(variant.name)
        own = int(variant.facts.get("max_context_tokens", 0))
        return SessionOptions(
            num_slots=sizes.num_slots,
            max_tokens=min(sizes.max_context_tokens or own, own)
            if own
            else sizes.max_context_tokens,
        )

    def _source(self, variant: StoredVariant) -> ModelSource:
        return ModelSource(
            directory=variant.directory,
            precision=variant.precision,
            device=self._options.sizes_of(variant.name).device,
            options=self._options.backend_options.get(variant.backend, {}),
        )
