"""The scheduler of one model that answers in whole calls; the thread's life is `hosting`."""

from __future__ import annotations

from collections.abc import Callable

from leptond.backend import BatchSession, Model, SessionOptions
from leptond.errors import LeptondError, UnsupportedCapability
from leptond.scheduler.batch_admission import BatchAdmission
from leptond.scheduler.batch_limits import BatchLimits
from leptond.scheduler.batch_request import BatchAnswer, BatchRequest, BatchSummary
from leptond.scheduler.batch_worker import BatchWorker
from leptond.scheduler.clock import MONOTONIC, Clock
from leptond.scheduler.compute import ComputeBudget
from leptond.scheduler.estimate import PaceEstimate
from leptond.scheduler.hosting import WorkerHost
from leptond.scheduler.options import SchedulerOptions
from leptond.streaming import ResponseSink
from leptond.text import Tokenizer
from leptond.types import (
    GenerationRequest,
    GenerationSummary,
    ModelLoad,
    RequestProgress,
    TokenChunk,
)

__all__ = ["BatchScheduler"]


class BatchScheduler(WorkerHost[BatchWorker]):
    """Dynamic batching for one model that answers in whole calls. Thread: any, unless said.

    Inputs of all callers that have equal options and lengths alike share a run. Batches form while
    the engine is busy: an idle engine takes what comes at once.

    Args:
        name: the model's, in messages, in the thread's name and for compute leases.
        model: of kind BATCH.
        session_options: `num_slots` (rows of a run) and `max_tokens` are at least 1.
        tokenizer: of generated texts; None serves token ids only.
        compute: the cores that all models share.
        flush: called on the worker thread when something was put into sinks.
        on_failure: called on the worker thread when it died by itself, every sink ended.

    Raises:
        UnsupportedCapability: the model does not answer whole calls.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        session_options: SessionOptions,
        tokenizer: Tokenizer | None,
        options: SchedulerOptions,
        *,
        compute: ComputeBudget,
        clock: Clock = MONOTONIC,
        flush: Callable[[], None],
        on_failure: Callable[[LeptondError], None] | None = None,
    ) -> None:
        self._model = model
        self._session_options = session_options
        self._options = options
        self._compute = compute
        self._clock = clock
        self._flush = flush
        self._limits = BatchLimits.resolve(
            name,
            model.capabilities,
            session_options,
            options,
            has_tokenizer=tokenizer is not None,
        )
        self._pace = PaceEstimate()
        self._admission = BatchAdmission(
            self._limits, options, tokenizer, clock=clock, pace=self._pace
        )
        super().__init__(name, self._admission, on_failure)

    def require_room(self) -> None:
        """Refuse early, before inputs are made ready that could not be queued.

        Raises:
            QueueFull, ShuttingDown, BackendCrashed: as `submit` would now.
        """
        self._admission.require_room()

    @property
    def max_context_tokens(self) -> int:
        """Longest item, special tokens included; of a generation, prompt and answer together."""
        return self._limits.max_context_tokens

    def submit(
        self, request: BatchRequest, sink: ResponseSink[BatchAnswer, BatchSummary]
    ) -> Callable[[], RequestProgress]:
        """Queue a request; its answers come through `sink` as they are made, by index.

        Returns when it is admitted; does not block: the event loop may call it. An item that the
        engine cannot answer ends its request, with the item's `index` in the error's details;
        answers that were made before have been pushed. What it returns says how far the request
        is, on any thread, for those that end before their answers do.

        Raises:
            QueueFull: too many wait; with `retry_after_s`.
            ShuttingDown: draining or stopped.
            BackendCrashed: the worker is dead.
            DeadlineExpired: the deadline is past, or the first answer would miss it by what this
                model's worker has measured.
            RequestTooLarge: an item is longer than the model takes.
            InvalidRequest: no items, or an item of no cost.
        """
        return self._admission.submit(request, sink)

    def submit_generation(
        self, request: GenerationRequest, sink: ResponseSink[TokenChunk, GenerationSummary]
    ) -> Callable[[], RequestProgress]:
        """Queue a text to generate; its tokens come through `sink`, as of a `StepScheduler`.

        Raises:
            UnsupportedCapability: the model generates no text, or not with an option of the
                request, which the error names.
            LeptondError: as `submit` and `StepScheduler.submit`.
        """
        return self._admission.submit_generation(request, sink)

    def load(self) -> ModelLoad:
        """How busy the model is. Cheap; the figures may be of two neighbouring runs."""
        worker, admission = self._worker, self._admission
        return ModelLoad(
            num_queued=admission.num_waiting,
            num_running=admission.num_running,
            max_queued=self._options.max_queued,
            max_running=self._limits.max_running,
            num_queued_tokens=admission.num_waiting_tokens,
            kv_tokens=0,
            max_kv_tokens=0,
            tokens_per_s=worker.sampled.per_second(self._clock.monotonic()) if worker else 0.0,
        )

    def _open(self) -> tuple[BatchSession, BatchWorker]:
        session = self._model.open_session(self._session_options)
        if not isinstance(session, BatchSession):
            session.shutdown()
            raise UnsupportedCapability(f"model {self._name} does not answer whole calls")
        worker = BatchWorker(
            session,
            self._admission,
            limits=self._limits,
            compute=self._compute,
            clock=self._clock,
            pace=self._pace,
            flush=self._flush,
        )
        return session, worker

    def _hurry(self) -> None:
        if self._worker is not None:
            self._worker.halt()
