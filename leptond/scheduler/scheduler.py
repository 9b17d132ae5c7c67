"""The scheduler of one model with an open decode loop; the thread's life is `hosting`."""

from __future__ import annotations

from collections.abc import Callable

from leptond.backend import Model, SessionOptions, StepSession
from leptond.errors import LeptondError, UnsupportedCapability
from leptond.scheduler.admission import Admission
from leptond.scheduler.clock import MONOTONIC, Clock
from leptond.scheduler.compute import ComputeBudget
from leptond.scheduler.estimate import PaceEstimate
from leptond.scheduler.hosting import WorkerHost
from leptond.scheduler.limits import ModelLimits
from leptond.scheduler.options import SchedulerOptions
from leptond.scheduler.worker import StepWorker
from leptond.streaming import ResponseSink
from leptond.text import Tokenizer
from leptond.types import (
    GenerationRequest,
    GenerationSummary,
    ModelLoad,
    RequestProgress,
    ScoringRequest,
    TokenChunk,
)

__all__ = ["StepScheduler"]


class StepScheduler(WorkerHost[StepWorker]):
    """Continuous batching for one model with an open decode loop. Thread: any, unless said.

    Args:
        name: the model's, in messages, in the thread's name and for compute leases.
        model: of kind STEP.
        session_options: `num_slots` and `max_tokens` are at least 1.
        tokenizer: None serves token ids only: every chunk's text is empty.
        compute: the cores that all models share.
        flush: called on the worker thread after each engine run, when something was put into sinks.
        on_failure: called on the worker thread when it died by itself, every sink ended.
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
        self._tokenizer = tokenizer
        self._options = options
        self._compute = compute
        self._clock = clock
        self._flush = flush
        self._limits = ModelLimits.resolve(
            name,
            model.capabilities,
            session_options,
            options,
            has_tokenizer=tokenizer is not None,
        )
        self._pace = PaceEstimate()
        self._admission = Admission(self._limits, options, clock=clock, pace=self._pace)
        super().__init__(name, self._admission, on_failure)

    def require_room(self) -> None:
        """Refuse early, before a prompt is made ready that could not be queued.

        Raises:
            QueueFull, ShuttingDown, BackendCrashed: as `submit` would now.
        """
        self._admission.require_room()

    @property
    def max_context_tokens(self) -> int:
        """Prompt and answer of one request together, as `submit` takes it."""
        return self._limits.max_context_tokens

    def submit(
        self, request: GenerationRequest, sink: ResponseSink[TokenChunk, GenerationSummary]
    ) -> Callable[[], RequestProgress]:
        """Queue a request; its answer comes through `sink`. Returns when it is admitted.

        Does not block: the event loop may call it. What it returns says how far the request is,
        on any thread, for those that end before their answer does.

        Raises:
            QueueFull: too many wait; with `retry_after_s`.
            ShuttingDown: draining or stopped.
            BackendCrashed: the worker is dead.
            DeadlineExpired: the deadline is past, or the first token would miss it by what this
                model's worker has measured.
            RequestTooLarge: no room for one token after the prompt.
            InvalidRequest: an empty prompt, a token that the model does not have, max_tokens < 1.
            UnsupportedCapability: stop strings or logprobs without a tokenizer.
        """
        return self._admission.submit(request, sink)

    def submit_scoring(
        self, request: ScoringRequest, sink: ResponseSink[TokenChunk, GenerationSummary]
    ) -> Callable[[], RequestProgress]:
        """Queue a text to score: its tokens come back with their log-probabilities, in order.

        It is read as a prompt is, beside others, in pieces; nothing is sampled.

        Raises:
            RequestTooLarge, InvalidRequest: context and target do not fit, or are none.
            QueueFull, ShuttingDown, BackendCrashed, DeadlineExpired: as `submit`.
        """
        return self._admission.submit_scoring(request, sink)

    def load(self) -> ModelLoad:
        """How busy the model is. Cheap; the figures may be of two neighbouring steps."""
        worker, admission = self._worker, self._admission
        return ModelLoad(
            num_queued=admission.num_waiting,
            num_running=admission.num_running,
            max_queued=self._options.max_queued,
            max_running=self._limits.max_running,
            num_queued_tokens=admission.num_waiting_tokens,
            kv_tokens=worker.kv_tokens if worker else 0,
            max_kv_tokens=self._limits.step.max_kv_tokens,
            tokens_per_s=worker.sampled.per_second(self._clock.monotonic()) if worker else 0.0,
        )

    def _open(self) -> tuple[StepSession, StepWorker]:
        session = self._model.open_session(self._session_options)
        if not isinstance(session, StepSession):
            session.shutdown()
            raise UnsupportedCapability(f"model {self._name} has no open decode loop")
        worker = StepWorker(
            session,
            self._admission,
            limits=self._limits,
            tokenizer=self._tokenizer,
            compute=self._compute,
            clock=self._clock,
            pace=self._pace,
            flush=self._flush,
        )
        return session, worker
