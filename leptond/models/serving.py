"""A loaded model, ready to serve, and how it is put together.

The loader runs on a loader thread, one per load: it reserves memory, has the backend load the
weights, reads the text assets, and starts the scheduler, whose worker thread owns the session.
"""

from __future__ import annotations

import contextlib
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
from leptond.errors import BackendCrashed, LeptondError, UnsupportedCapability
from leptond.memory import MemoryBudget, Reservation
from leptond.models.store import StoredVariant
from leptond.scheduler import (
    BatchAnswer,
    BatchRequest,
    BatchScheduler,
    BatchSummary,
    ComputeBudget,
    SchedulerOptions,
    StepScheduler,
)
from leptond.streaming import ResponseSink
from leptond.text import ChatTemplate, EncoderTokenizer, TextLayer, Tokenizer
from leptond.types import (
    GenerationRequest,
    GenerationSummary,
    RequestProgress,
    Task,
    TokenChunk,
)

__all__ = ["LoadPlan", "LoaderOptions", "ModelLoader", "ModelSizes", "ServedModel"]

_WEIGHTS_SHARE = 0.9  # of a load's time that the weights take, roughly: progress is for people
_SESSION_SHARE = 0.95
_KV_SHARE = 0.25  # of the budget, for one model's keys and values, unless configured
_STOP_DEADLINE_S = 10.0  # a step takes milliseconds; a worker that needs longer is stuck


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """Where one model runs and how much it may take.

    Attributes:
        device: `cpu`, `cuda:0`.
        num_slots: texts that it generates at once.
        max_context_tokens: longest prompt and answer together; 0 is the model's own limit.
        kv_bytes: memory for keys and values; 0 is room for every slot in full, at most a quarter
            of the budget.
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
class LoadPlan:
    """What loading a variant would take, and what it could then do.

    Attributes:
        weights_bytes, kv_bytes: what is reserved.
        max_context_tokens: prompt and answer together, as configured; 0: not known before a load.
    """

    weights_bytes: int
    kv_bytes: int
    max_context_tokens: int

    @property
    def needed_bytes(self) -> int:
        """What `ModelLoader.load` will reserve."""
        return self.weights_bytes + self.kv_bytes


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Everything that a request needs of one loaded variant; alive while a lease is held.

    Attributes:
        text: its tokenizers and chat template.
        device: where it runs, such as `cuda:0`.
        max_context_tokens: what the scheduler admits: prompt and answer of one request together,
            or the input of one row of a whole call.
    """

    variant: StoredVariant
    capabilities: Capabilities
    text: TextLayer
    scheduler: StepScheduler | BatchScheduler
    device: str
    max_context_tokens: int
    _model: Model
    _reservations: tuple[Reservation, ...]

    @property
    def name(self) -> str:
        """`model:variant`."""
        return self.variant.name

    @property
    def reserved_bytes(self) -> int:
        """Memory that it holds of the budget."""
        return sum(reservation.num_bytes for reservation in self._reservations)

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of the texts that it writes; of a decoder, of its prompts too.

        Raises:
            UnsupportedCapability: it writes no text.
        """
        if self.text.writer is None:
            raise UnsupportedCapability(f"model {self.name} writes no text", field="model")
        return self.text.writer

    @property
    def encoder(self) -> EncoderTokenizer:
        """Tokenizer of what its encoder reads.

        Raises:
            UnsupportedCapability: it has no encoder.
        """
        if self.text.encoder is None:
            raise UnsupportedCapability(f"model {self.name} has no encoder", field="model")
        return self.text.encoder

    @property
    def template(self) -> ChatTemplate | None:
        """How its conversations are written, if it is a chat model."""
        return self.text.template

    def require(self, *tasks: Task) -> Task:
        """Say which of `tasks` the model answers: the first that it can.

        Raises:
            UnsupportedCapability: none of them; the message says what it is for.
        """
        for task in tasks:
            if task in self.capabilities.tasks:
                return task
        wanted = " or ".join(tasks)
        known = ", ".join(sorted(self.capabilities.tasks))
        msg = f"model {self.name} does not {wanted}; it does {known}"
        raise UnsupportedCapability(msg, field="model")

    def generate(
        self, request: GenerationRequest, sink: ResponseSink[TokenChunk, GenerationSummary]
    ) -> Callable[[], RequestProgress]:
        """Queue a text to generate, on either kind of engine.

        See `StepScheduler.submit` and `BatchScheduler.submit_generation`.
        """
        if isinstance(self.scheduler, StepScheduler):
            return self.scheduler.submit(request, sink)
        return self.scheduler.submit_generation(request, sink)

    def run(
        self, request: BatchRequest, sink: ResponseSink[BatchAnswer, BatchSummary]
    ) -> Callable[[], RequestProgress]:
        """Queue inputs of a whole call. See `BatchScheduler.submit`.

        Raises:
            UnsupportedCapability: the model does not answer whole calls.
        """
        if not isinstance(self.scheduler, BatchScheduler):
            msg = f"model {self.name} does not answer whole calls"
            raise UnsupportedCapability(msg, field="model")
        return self.scheduler.submit(request, sink)

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
        return self._budget.can_reserve(self.plan(variant).needed_bytes)

    def plan(self, variant: StoredVariant) -> LoadPlan:
        """What `load` will do; reads metadata only."""
        return self._plan(variant, self.estimate(variant))

    def _plan(self, variant: StoredVariant, estimate: MemoryEstimate) -> LoadPlan:
        kv_bytes = self._kv_bytes(variant, estimate)
        context = self._session_options(variant).max_tokens
        if context:
            context = min(context, _kv_tokens(kv_bytes, estimate, context))
        return LoadPlan(estimate.weights_bytes, kv_bytes, context)

    def load(
        self, variant: StoredVariant, progress: Progress, on_crash: Callable[[LeptondError], None]
    ) -> ServedModel:
        """Load one variant; blocks for as long as that takes.

        `on_crash` is called on the model's worker thread when that died by itself.

        Raises:
            MemoryBudgetExceeded, BackendUnavailable, UnsupportedCapability, ModelFailed.
        """
        progress("reserve", 0.0)
        backend = self._find_backend(variant.backend)
        estimate = self.estimate(variant)
        with contextlib.ExitStack() as undo:
            reservations = []
            plan = self._plan(variant, estimate)
            for pool, num_bytes in {"weights": plan.weights_bytes, "kv": plan.kv_bytes}.items():
                reservations.append(self._budget.reserve(num_bytes, variant.name, pool))
                undo.callback(reservations[-1].release)
            model = backend.load(
                self._source(variant),
                lambda stage, fraction: progress(stage, fraction * _WEIGHTS_SHARE),
            )
            undo.callback(model.close)
            progress("tokenizer", _WEIGHTS_SHARE)
            text = TextLayer.load(variant.assets)
            scheduler = self._make_scheduler(variant, model, text.writer, estimate, on_crash)
            progress("session", _SESSION_SHARE)
            scheduler.start()
            undo.pop_all()
        return ServedModel(
            variant=variant,
            capabilities=model.capabilities,
            text=text,
            scheduler=scheduler,
            device=self._options.sizes_of(variant.name).device,
            max_context_tokens=scheduler.max_context_tokens,
            _model=model,
            _reservations=tuple(reservations),
        )

    def _make_scheduler(
        self,
        variant: StoredVariant,
        model: Model,
        tokenizer: Tokenizer | None,
        estimate: MemoryEstimate,
        on_crash: Callable[[LeptondError], None],
    ) -> StepScheduler | BatchScheduler:
        session = self._fit(variant, model.capabilities)
        if model.capabilities.kind is SessionKind.BATCH:
            return BatchScheduler(
                variant.name,
                model,
                session,
                tokenizer,
                self._options.scheduler,
                compute=self._compute,
                flush=self._flush,
                on_failure=on_crash,
            )
        kv_bytes = self._kv_bytes(variant, estimate)
        max_kv_tokens = _kv_tokens(kv_bytes, estimate, session.max_tokens)
        return StepScheduler(
            variant.name,
            model,
            session,
            tokenizer,
            self._options.scheduler.with_kv_tokens(max_kv_tokens),
            compute=self._compute,
            flush=self._flush,
            on_failure=on_crash,
        )

    def _fit(self, variant: StoredVariant, capabilities: Capabilities) -> SessionOptions:
        """What was configured, as far as the model can."""
        wanted = self._session_options(variant)
        most = capabilities.max_context_tokens
        is_batch = capabilities.kind is SessionKind.BATCH
        num_rows = capabilities.max_batch_rows  # bounded by tokens, not by slots
        return SessionOptions(
            num_slots=num_rows if is_batch else min(wanted.num_slots, capabilities.max_slots),
            max_tokens=min(wanted.max_tokens or most, most),
            num_threads=wanted.num_threads,
        )

    def _kv_bytes(self, variant: StoredVariant, estimate: MemoryEstimate) -> int:
        """Room for every slot in full, unless that is more than one model should promise itself.

        Texts are seldom as long as they may be; when they are, the scheduler preempts.
        """
        sizes = self._options.sizes_of(variant.name)
        most = sizes.kv_bytes or int(self._budget.limit_bytes * _KV_SHARE)
        return min(estimate.slot_bytes * sizes.num_slots, most)

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
            num_cores=self._compute.num_cores,
            directory=variant.directory,
            precision=variant.precision,
            device=self._options.sizes_of(variant.name).device,
            options=self._options.backend_options.get(variant.backend, {}),
        )


def _kv_tokens(kv_bytes: int, estimate: MemoryEstimate, slot_tokens: int) -> int:
    """Tokens whose keys and values fit; a slot of `slot_tokens` takes `estimate.slot_bytes`."""
    return max(1, kv_bytes // max(1, estimate.slot_bytes // slot_tokens))
