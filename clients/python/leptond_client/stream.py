"""Answers that come in pieces, for ordinary, blocking code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
from google.protobuf.message import Message as WireMessage

from leptond_client.bulk import Bulk
from leptond_client.connection import Attempts, Outcome
from leptond_client.errors import Cancelled
from leptond_client.responses import Fold
from leptond_client.values import EmbeddedBatch, EmbeddingSummary

__all__ = ["EmbedStream", "Stream"]

ItemT = TypeVar("ItemT")
FinalT = TypeVar("FinalT")


class Stream(Generic[ItemT, FinalT]):
    """The pieces of an answer as they come, for one reader.

    The call is under way when the stream is made. Leaving the loop over it, by `break`, `return`,
    an error or Ctrl-C, cancels the call at once; so do `cancel` and the end of a `with` block.

    Args:
        begin: begins an attempt with that `timeout` in seconds; returns gRPC's call.
        fold: understands the messages.
        attempts: of the call.
    """

    def __init__(
        self, begin: Callable[..., Any], fold: Fold[ItemT, FinalT], attempts: Attempts
    ) -> None:
        self._begin_call = begin
        self._fold = fold
        self._attempts = attempts
        self._outcome = Outcome[FinalT]()
        self._was_cancelled = threading.Event()
        self._rpc = self._begin()

    @property
    def result(self) -> FinalT:
        """What the whole stream said.

        Raises:
            RuntimeError: the stream has not been read to its end.
        """
        return self._outcome.get()

    def cancel(self) -> None:
        """End the call; whoever reads gets `Cancelled`. Any thread; twice does no harm."""
        self._was_cancelled.set()
        self._rpc.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __iter__(self) -> Iterator[ItemT]:
        # A generator, because Python closes it as soon as a loop over it is left.
        try:
            while not self._outcome.is_known:
                was_answered = False
                try:
                    self._feed()
                    for message in self._rpc:
                        was_answered = True
                        item = self._fold.add(message)
                        self._feed()
                        if item is not None:
                            yield item
                    self._attempts.answered()
                    self._outcome.set(self._fold.final())
                except grpc.RpcError as failure:
                    self._wait_after(failure, was_answered=was_answered)
                    self._rpc = self._begin()
                    if self._was_cancelled.is_set():  # by another thread, after the wait
                        self._rpc.cancel()
        finally:
            self.cancel()

    def _begin(self) -> Any:
        """Begin an attempt; returns gRPC's call."""
        return self._begin_call(timeout=self._attempts.remaining_s())

    def _feed(self) -> None:
        """Send what can be sent before the next message is awaited."""

    def _wait_after(self, failure: grpc.RpcError, *, was_answered: bool) -> None:
        """Wait for the next attempt, or raise why there is none."""
        if not self._was_cancelled.is_set():
            delay_s = self._attempts.delay_after(failure, was_answered=was_answered)
            if not self._was_cancelled.wait(delay_s):
                return
        raise Cancelled("the stream was cancelled by its reader") from failure


class EmbedStream(Stream[EmbeddedBatch, EmbeddingSummary]):
    """The vectors of any number of texts, batch by batch and in order, for one reader.

    The texts are read by whoever reads the stream, between one batch of results and the next, and
    never further ahead than the batches in flight.

    Args:
        begin: begins an attempt, from an iterator of requests and a `timeout`.
        bulk: the texts.
        attempts: of the call.
    """

    def __init__(self, begin: Callable[..., Any], bulk: Bulk, attempts: Attempts) -> None:
        self._bulk = bulk
        self._begin_bulk = begin
        self._outgoing: SimpleQueue[WireMessage | None] = SimpleQueue()
        super().__init__(self._begin_sending, bulk, attempts)

    def cancel(self) -> None:
        """End the call; whoever reads gets `Cancelled`. Any thread; twice does no harm."""
        super().cancel()
        self._outgoing.put(None)

    def _begin_sending(self, timeout: float | None) -> Any:
        self._outgoing.put(None)  # gRPC's thread of an earlier attempt ends with this
        self._outgoing = SimpleQueue()
        for request in self._bulk.unanswered():
            self._outgoing.put(request)
        self._is_ended = False
        return self._begin_bulk(iter(self._outgoing.get, None), timeout=timeout)

    def _feed(self) -> None:
        while (request := self._bulk.next_request()) is not None:
            self._outgoing.put(request)
        if self._bulk.is_exhausted and not self._is_ended:
            self._is_ended = True
            self._outgoing.put(None)
