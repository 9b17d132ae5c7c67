"""A model's worker thread, from the opening of its session to its end, whatever the worker does.

    start ──▶ running ──drain──▶ draining ──stop──▶ stopped
                 │                   │
                 └───────crash───────┴────────────▶ dead: every caller was told

I1  Every session verb is called on the worker thread, `BatchSession.interrupt` excepted.
I2  Whatever ends the worker, every sink has been ended when it is gone.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import logging
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from leptond.backend import BatchSession, StepSession
from leptond.errors import BackendCrashed, InvariantViolation, LeptondError, ShuttingDown
from leptond.scheduler.admission import FrontDoor

__all__ = ["Worker", "WorkerHost"]

logger = logging.getLogger(__name__)

_PR_SET_NAME = 15  # linux/prctl.h


class Worker(Protocol):
    """What runs on the thread."""

    @property
    def next_deadline(self) -> float:
        """When it must look again although nothing happened; infinity for never."""
        ...

    def advance(self, *, has_news: bool = True) -> bool:
        """Do one piece of work; False when there is none."""
        ...

    def fail_all(self, make_error: Callable[[], LeptondError]) -> None:
        """End every request with an error of its own. Never raises."""
        ...

    def check_integrity(self) -> None:
        """Raise `InvariantViolation` when its books do not add up. When idle."""
        ...


WorkerT = TypeVar("WorkerT", bound=Worker)


class WorkerHost(ABC, Generic[WorkerT]):
    """Base of the schedulers. Thread: any, unless said.

    Args:
        name: the model's, in messages and in the thread's name.
        admission: where requests wait for the worker.
        on_failure: called on the worker thread when it died by itself, every sink ended.
    """

    def __init__(
        self,
        name: str,
        admission: FrontDoor[Any],
        on_failure: Callable[[LeptondError], None] | None,
    ) -> None:
        self._name = name
        self._front_door = admission
        self._on_failure = on_failure
        self._worker: WorkerT | None = None
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

    def wake(self) -> None:
        """Have the worker look for cancelled requests now. Sinks do that by themselves."""
        self._front_door.ring()

    @property
    def failure(self) -> LeptondError | None:
        """Why the worker died; None while it lives, and when it was stopped."""
        return self._failure

    def drain(self) -> None:
        """Take nothing new; what runs and what waits finishes. Idempotent."""
        self._front_door.close(self._refuse_shutdown)

    def wait_until_idle(self, timeout_s: float | None = None) -> bool:
        """Block until no request is inside; False when that took longer than `timeout_s`."""
        return self._front_door.wait_until_empty(timeout_s)

    def stop(self, deadline_s: float) -> bool:
        """Fail what is left with `ShuttingDown`, shut the session down, join the thread.

        Idempotent. False when the thread did not end within `deadline_s`: an engine call is stuck,
        its stack is in the log, and its callers have not been told.
        """
        self._is_stopping = True
        self._front_door.close(self._refuse_shutdown)
        self._hurry()
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
    @abstractmethod
    def _open(self) -> tuple[StepSession | BatchSession, WorkerT]:
        """Open the session, and make the worker that is to use it. On the worker thread."""

    def _hurry(self) -> None:
        """Shorten what the worker does at this moment, where the engine can: it is to stop."""

    def _main(self, opened: concurrent.futures.Future[None]) -> None:
        _name_native_thread(threading.current_thread().name)
        try:
            session, worker = self._open()
        except BaseException as error:
            self._front_door.close(self._refuse_dead)
            opened.set_exception(error)
            return
        self._worker = worker
        opened.set_result(None)
        try:
            self._serve(worker)
        except BaseException as error:  # the outermost guard: callers must never be left waiting
            self._die(worker, error)
        finally:
            self._shutdown(session)

    def _serve(self, worker: WorkerT) -> None:
        while True:
            has_news = self._front_door.begin_round()
            # Read after the round began: what is asked later is news that ends the wait.
            if self._is_stopping:
                worker.fail_all(self._refuse_shutdown)
                return
            if not worker.advance(has_news=has_news):
                worker.check_integrity()
                self._front_door.wait(worker.next_deadline)

    def _die(self, worker: WorkerT, error: BaseException) -> None:
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
        self._front_door.close(self._refuse_dead)
        worker.fail_all(explain)
        if self._on_failure is not None:
            self._on_failure(self._failure)

    def _shutdown(self, session: StepSession | BatchSession) -> None:
        try:
            session.shutdown()
        except Exception:
            logger.exception("session does not shut down model=%s", self._name)

    def _refuse_shutdown(self) -> LeptondError:
        return ShuttingDown(f"model {self._name} takes no more requests")

    def _refuse_dead(self) -> LeptondError:
        return BackendCrashed(f"the worker of model {self._name} is dead")


def _name_native_thread(name: str) -> None:
    """Show the kernel, and so `top -H` and `perf`, what the thread is; 15 bytes are kept.

    Python does it by itself from 3.14 on.
    """
    ctypes.CDLL(None).prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0)
