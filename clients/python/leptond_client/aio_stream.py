"""Answers that come in pieces, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
from google.protobuf.message import Message as WireMessage

from leptond_client.bulk import Bulk
from leptond_client.connection import Attempts, Outcome
from leptond_client.errors import Cancelled
from leptond_client.responses import Fold
from leptond_client.values import EmbeddedBatch, EmbeddingSummary

__all__ = ["AsyncEmbedStream", "AsyncStream", "is_task_cancelled"]

_CANCELLED = "the stream was cancelled by its reader, or the client was closed"

ItemT = TypeVar("ItemT")
FinalT = TypeVar("FinalT")


class AsyncStream(Generic[ItemT, FinalT]):
    """The pieces of an answer as they come, for one reader.

    The call is under way when the stream is made. Leaving the loop over it, or cancelling the task
    that reads, cancels the call; so do `cancel` and the end of an `async with` block.

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
        self._was_cancelled = asyncio.Event()
        self._rpc = self._begin()

    @property
    def result(self) -> FinalT:
        """What the whole stream said.

        Raises:
            RuntimeError: the stream has not been read to its end.
        """
        return self._outcome.get()

    def cancel(self) -> None:
        """End the call; whoever reads gets `Cancelled`. On the loop; twice does no harm."""
        self._was_cancelled.set()
        self._rpc.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    async def __aiter__(self) -> AsyncIterator[ItemT]:
        try:
            while not self._outcome.is_known:
                was_answered = False
                try:
                    self._feed()
                    async for message in self._rpc:
                        was_answered = True
                        item = self._fold.add(message)
                        self._feed()
                        if item is not None:
                            yield item
                    self._attempts.answered()
                    self._outcome.set(self._fold.final())
                except grpc.RpcError as failure:
                    delay_s = self._attempts.delay_after(failure, was_answered=was_answered)
                    await self._wait(delay_s)
                    self._rpc = self._begin()
        except asyncio.CancelledError as error:
            if is_task_cancelled():
                raise
            raise Cancelled(_CANCELLED) from error
        finally:
            self.cancel()

    def _begin(self) -> Any:
        """Begin an attempt; returns gRPC's call."""
        return self._begin_call(timeout=self._attempts.remaining_s())

    def _feed(self) -> None:
        """Send what can be sent before the next message is awaited."""

    async def _wait(self, delay_s: float) -> None:
        """Wait for the next attempt, or for `cancel`."""
        try:
            async with asyncio.timeout(delay_s):
                await self._was_cancelled.wait()
        except TimeoutError:
            return
        raise Cancelled(_CANCELLED)


class AsyncEmbedStream(AsyncStream[EmbeddedBatch, EmbeddingSummary]):
    """The vectors of any number of texts, batch by batch and in order, for one reader.

    The texts are read on the loop, between one batch of results and the next, and never further
    ahead than the batches in flight.

    Args:
        begin: begins an attempt, from an iterator of requests and a `timeout`.
        bulk: the texts.
        attempts: of the call.
    """

    def __init__(self, begin: Callable[..., Any], bulk: Bulk, attempts: Attempts) -> None:
        self._bulk = bulk
        self._begin_bulk = begin
        self._outgoing: asyncio.Queue[WireMessage | None] = asyncio.Queue()
        super().__init__(self._begin_sending, bulk, attempts)

    def _begin_sending(self, timeout: float | None) -> Any:
        self._outgoing = asyncio.Queue()
        for request in self._bulk.unanswered():
            self._outgoing.put_nowait(request)
        self._is_ended = False
        return self._begin_bulk(self._requests(self._outgoing), timeout=timeout)

    async def _requests(
        self, outgoing: asyncio.Queue[WireMessage | None]
    ) -> AsyncIterator[WireMessage]:
        """What is sent in one attempt; gRPC cancels the task that waits here when its call ends.

        After the first batch it waits for the daemon to admit the call: gRPC would report a
        message that meets a refusal on its way as a fault of its own, and the refusal would be
        lost.
        """
        while (message := await outgoing.get()) is not None:
            yield message
            await self._rpc.initial_metadata()
            if self._rpc.done():
                return

    def _feed(self) -> None:
        while (request := self._bulk.next_request()) is not None:
            self._outgoing.put_nowait(request)
        if self._bulk.is_exhausted and not self._is_ended:
            self._is_ended = True
            self._outgoing.put_nowait(None)


def is_task_cancelled() -> bool:
    """Whether this very task was cancelled; gRPC says so as well when only its call was."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
