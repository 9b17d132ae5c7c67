"""What every session of whole calls does around the engine's own: checks, interruption, its end."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from leptond.backend.answers import Answers
from leptond.backend.rows import BatchRow, EmittedChunk
from leptond.errors import BackendCrashed, InvalidRequest, InvariantViolation

__all__ = ["WholeCallSession"]

Emit = Callable[[int, EmittedChunk], bool]


class WholeCallSession(ABC):
    """A `BatchSession` whose engine answers whole calls; the weights are the model's.

    Every method but `interrupt` is called on the session's own thread.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._interrupted = threading.Event()
        self._is_shut_down = False
        self._is_dead = False

    @property
    def is_shut_down(self) -> bool:
        """Whether the session is over."""
        return self._is_shut_down

    def run(self, batch: Sequence[BatchRow], emit: Emit) -> None:
        """Answer every row through `emit`.

        Raises:
            InvalidRequest: a row breaks its contract, or asks for what the model does not do;
                nothing ran.
            BackendFault: the engine refused the call; it goes on.
            BackendCrashed: the device is lost.
        """
        if self._is_shut_down:
            raise InvariantViolation("a session was used after its shutdown")
        if self._is_dead:
            raise BackendCrashed("the session's device was lost in an earlier call")
        self._interrupted.clear()
        if not batch:
            return
        if len(batch) > self._max_rows:
            raise InvalidRequest(f"{len(batch)} rows; at most {self._max_rows} fit", field="batch")
        call = self._prepare(batch)
        try:
            call(Answers(batch, emit, self._interrupted))
        except BackendCrashed:
            self._is_dead = True
            raise

    def interrupt(self) -> None:
        """End the running call at its next token; rows that are open get no final chunk.

        A call without tokens on the way (an encoder's, a beam search) ends by itself, and then
        nothing of it is given any more.
        """
        self._interrupted.set()

    def shutdown(self) -> None:
        """Let go of the engine; idempotent."""
        self._is_shut_down = True

    @abstractmethod
    def _prepare(self, batch: Sequence[BatchRow]) -> Callable[[Answers], None]:
        """Check every row; answer with what then runs."""
