"""One model's scheduler: the thread that owns the session, and what others may ask of it.

    start ──▶ running ──drain──▶ draining ──stop──▶ stopped
                 │                   │
                 └───────crash───────┴────────────▶ dead: every caller was told

I1  Every session verb is called on the worker thread.
I2  Whatever ends the worker, every sink has been ended when it is gone.
"""

from __future__ import annotations

import concurrent.futures
import logging
import sys
import threading
import traceback
from collections.abc import Callable

from leptond.backend import Model, SessionOptions, StepSession
from leptond.errors import (
    BackendCrashed,
    InvariantViolation,
    LeptondError,
    ShuttingDown,
    UnsupportedCapability,
)
from leptond.scheduler.admission import Admission
from leptond.scheduler.clock import MONOTONIC, Clock
from leptond.scheduler.compute import ComputeBudget
from leptond.scheduler.estimate import PaceEstimate
from leptond.scheduler.limits import ModelLimits
from leptond.scheduler.options import SchedulerOptions
from leptond.scheduler.worker import StepWorker
from leptond.streaming import ResponseSink
from leptond.text import Tokenizer
from leptond.types import GenerationRequest, GenerationSummary, ModelLoad, TokenChunk

__all__ = ["StepScheduler"]

logger = logging.getLogger(__name__)


class StepScheduler:
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
        self._name = name
        self._model = model
        self._session_options = session_options
        self._tokenizer = tokenizer
        self._options = options
        self._compute = compute
        self._clock = clock
        self._flush = flush
        self._on_failure = on_failure
        self._limits = ModelLimits.resolve(
            name,
            model.capabilities,
            session_options,
            options,
            has_tokenizer=tokenizer is not None,
        )
        self._pace = PaceEstimate()
        self._admission = Admission(self._limits, options, clock=clock, pace=self._pace)
        self._worker: StepWorker | None = None
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._failure: LeptondError | None = None

    def start(self) -> None:
        """Open the session on a thread of its own and begin to serve. Blocks until it is open.

        Raises:
            Exception: whatever `Model.open_session` raised; nothing runs then.
        """
        if self._thread is not None:
            raise InvariantViolation(f"the scheduler of {self._name} is started twice")
        opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._main, args=(opened,), name=f"leptond-worker-{self._name}", daemon=True
        )
        self._thread.start()
        try:
            opened.result()
        except BaseException:
            self._thread.join()
            raise

    def submit(
        self, request: GenerationRequest, sink: ResponseSink[TokenChunk, GenerationSummary]
    ) -> None:
        """Queue a request; its answer comes through `sink`. Returns when it is admitted.

        Does not block: the event loop may call it.

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
        self._admission.submit(request, sink)

    def wake(self) -> None:
        """Have the worker look for cancelled requests now. Sinks do that by themselves."""
        self._admission.ring()

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

    @property
    def failure(self) -> LeptondError | None:
        """Why the worker died; None while it lives, and when it was stopped."""
        return self._failure

    def drain(self) -> None:
        """Take nothing new; what runs and what waits finishes. Idempotent."""
        self._admission.close(self._refuse_shutdown)

    def wait_until_idle(self, timeout_s: float | None = None) -> bool:
        """Block until no request is inside; False when that took longer than `timeout_s`."""
        return self._admission.wait_until_empty(timeout_s)

    def stop(self, deadline_s: float) -> bool:
        """Fail what is left with `ShuttingDown`, shut the session down, join the thread.

        Idempotent. False when the thread did not end within `deadline_s`: an engine call is stuck,
        its stack is in the log, and its callers have not been told.
        """
        self._is_stopping = True
        self._admission.close(self._refuse_shutdown)
        thread = self._thread
        if thread is None:
            return True
        thread.join(deadline_s)
        if not thread.is_alive():
            return True
        frame = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        logger.critical("worker stuck model=%s waited_s=%.1f\n%s", self._name, deadline_s, stack)
        return False

    # ------------------------------------------------------------------ the worker thread
    def _main(self, opened: concurrent.futures.Future[None]) -> None:
        try:
            session = self._open_session()
        except BaseException as error:
            self._admission.close(self._refuse_dead)
            opened.set_exception(error)
            return
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
        self._worker = worker
        opened.set_result(None)
        try:
            self._serve(worker)
        except BaseException as error:  # the outermost guard: callers must never be left waiting
            self._die(worker, error)
        finally:
            self._shutdown(session)

    def _serve(self, worker: StepWorker) -> None:
        while True:
            has_news = self._admission.begin_round()
            # Read after the round began: what is asked later is news that ends the wait.
            if self._is_stopping:
                worker.fail_all(self._refuse_shutdown)
                return
            if not worker.advance(has_news=has_news):
                worker.check_integrity()
                self._admission.wait(worker.next_deadline)

    def _die(self, worker: StepWorker, error: BaseException) -> None:
        logger.critical("worker died model=%s", self._name, exc_info=error)

        def explain() -> LeptondError:
            told: LeptondError
            if isinstance(error, BackendCrashed):
                told = BackendCrashed(error.message)
            else:
                told = InvariantViolation(f"{type(error).__name__} in the worker of {self._name}")
            told.__cause__ = error
            return told

        self._failure = explain()
        self._admission.close(self._refuse_dead)
        worker.fail_all(explain)
        if self._on_failure is not None:
            self._on_failure(self._failure)

    def _open_session(self) -> StepSession:
        session = self._model.open_session(self._session_options)
        if not isinstance(session, StepSession):
            session.shutdown()
            raise UnsupportedCapability(f"model {self._name} has no open decode loop")
        return session

    def _shutdown(self, session: StepSession) -> None:
        try:
            session.shutdown()
        except Exception:
            logger.exception("session does not shut down model=%s", self._name)

    def _refuse_shutdown(self) -> LeptondError:
        return ShuttingDown(f"model {self._name} takes no more requests")

    def _refuse_dead(self) -> LeptondError:
        return BackendCrashed(f"the worker of model {self._name} is dead")
