"""The client for asyncio: `Client`, method by method, with `await` and `async for`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

import grpc
from grpc import aio

from leptond_client import calls, options, values
from leptond_client.calls import StreamCall, UnaryCall
from leptond_client.connection import (
    Attempts,
    ConnectionKeywords,
    ConnectionOptions,
    ConnectionState,
    Outcome,
    resolve_address,
    serialize,
)
from leptond_client.errors import Cancelled
from leptond_client.requests import MessageLike, Prompt

__all__ = ["AsyncClient", "AsyncStream"]

_CANCELLED = "the stream was cancelled by its reader, or the client was closed"

T = TypeVar("T")
ItemT = TypeVar("ItemT")
FinalT = TypeVar("FinalT")


class AsyncClient:
    """A connection to a daemon, for the tasks of one event loop.

    It can be made before the loop runs and connects with its first call. Close it, or use it in an
    `async with` block:

        async with AsyncClient() as client:
            async for delta in client.generate_stream("smollm2-135m-instruct", "Once upon"):
                print(delta.text, end="", flush=True)

    Cancelling the task that waits cancels the call. Otherwise everything is as with `Client`.

    Raises:
        ValueError: the address is none.
    """

    def __init__(self, address: str | None = None, **settings: Unpack[ConnectionKeywords]) -> None:
        self._settings = ConnectionOptions(resolve_address(address), **settings)
        self._state = ConnectionState()

    @property
    def address(self) -> str:
        """Where the daemon is."""
        return self._settings.address

    async def close(self) -> None:
        """Cancel what runs and disconnect."""
        self._state.is_closed = True
        if "_channel" in vars(self):
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def generate(
        self, model: str, prompt: Prompt, **given: Unpack[options.GenerateOptions]
    ) -> values.Generation:
        """Continue a raw prompt: text, or token ids. No chat template is applied."""
        return await self._run(calls.generate(model, prompt, given))

    def generate_stream(
        self, model: str, prompt: Prompt, **given: Unpack[options.GenerateStreamOptions]
    ) -> AsyncStream[values.Delta, values.Generation]:
        """Continue a raw prompt, piece by piece; the whole is the stream's `result`."""
        return self._open(calls.generate_stream(model, prompt, given))

    async def chat(
        self,
        model: str,
        messages: Iterable[MessageLike],
        **given: Unpack[options.ChatOptions],
    ) -> values.Generation:
        """Answer a conversation, oldest message first."""
        return await self._run(calls.chat(model, messages, given))

    def chat_stream(
        self,
        model: str,
        messages: Iterable[MessageLike],
        **given: Unpack[options.ChatStreamOptions],
    ) -> AsyncStream[values.Delta, values.Generation]:
        """Answer a conversation, piece by piece; the whole is the stream's `result`."""
        return self._open(calls.chat_stream(model, messages, given))

    async def tokenize(
        self,
        model: str,
        source: str | Iterable[MessageLike],
        **given: Unpack[options.TokenizeOptions],
    ) -> values.Tokenization:
        """Make tokens of a text, or of a conversation as `chat` would render it."""
        return await self._run(calls.tokenize(model, source, given))

    async def detokenize(
        self, model: str, token_ids: Sequence[int], **given: Unpack[options.DetokenizeOptions]
    ) -> str:
        """Make a text of tokens; bytes that are no character become U+FFFD."""
        return await self._run(calls.detokenize(model, token_ids, given))

    async def models(
        self, name: str = "", **given: Unpack[options.CallOptions]
    ) -> tuple[values.Model, ...]:
        """List the models of the daemon's store, or the one of that name."""
        return await self._run(calls.models(name, given))

    def load_model(
        self, name: str, **given: Unpack[options.CallOptions]
    ) -> AsyncStream[values.LoadProgress, values.ModelVariant]:
        """Load a model and follow how far it is. Leaving the stream does not stop the load."""
        return self._open(calls.load_model(name, given))

    async def unload_model(
        self, name: str, **given: Unpack[options.CallOptions]
    ) -> values.UnloadedModels:
        """Unload a variant, or all of a model, once their calls are done."""
        return await self._run(calls.unload_model(name, given))

    async def get_load(
        self, name: str = "", **given: Unpack[options.CallOptions]
    ) -> values.DaemonLoad:
        """Ask how busy the daemon is, and each loaded model or the one of that name."""
        return await self._run(calls.get_load(name, given))

    async def check(
        self, name: str = "", **given: Unpack[options.CallOptions]
    ) -> values.ServingStatus:
        """Ask for the health of the daemon, or of the model or service of that name."""
        return await self._run(calls.check(name, given))

    def watch(
        self, name: str = "", **given: Unpack[options.CallOptions]
    ) -> AsyncStream[values.ServingStatus, None]:
        """Follow the health of a name: its status now, and again whenever it changes."""
        return self._open(calls.watch(name, given))

    async def health(self, **given: Unpack[options.CallOptions]) -> dict[str, values.ServingStatus]:
        """Ask for the health of everything, by name; "" is the daemon."""
        return await self._run(calls.health(given))

    @cached_property
    def _channel(self) -> aio.Channel:
        # Made late: a channel belongs to the loop that runs when it is made.
        settings, arguments = self._settings, self._settings.channel_arguments()
        if settings.credentials is None:
            return aio.insecure_channel(settings.address, arguments)
        return aio.secure_channel(settings.address, settings.credentials, arguments)

    async def _run(self, call: UnaryCall[T]) -> T:
        method = self._channel.unary_unary(call.path, serialize, call.decode)
        attempts = Attempts(self._settings, self._state, call.options)
        while True:
            try:
                response = await method(
                    call.request,
                    timeout=attempts.remaining_s(),
                    metadata=self._settings.metadata,
                )
            except grpc.RpcError as failure:
                delay_s = attempts.delay_after(failure)
            except asyncio.CancelledError as error:
                if _is_task_cancelled():
                    raise
                raise Cancelled("the client was closed") from error
            else:
                attempts.answered()
                return call.convert(response)
            await asyncio.sleep(delay_s)

    def _open(self, call: StreamCall[ItemT, FinalT]) -> AsyncStream[ItemT, FinalT]:
        attempts = Attempts(self._settings, self._state, call.options)
        return AsyncStream(self._channel, self._settings.metadata, call, attempts)


class AsyncStream(Generic[ItemT, FinalT]):
    """The pieces of an answer as they come, for one reader.

    The call is under way when the stream is made. Leaving the loop over it, or cancelling the task
    that reads, cancels the call; so do `cancel` and the end of an `async with` block.
    """

    def __init__(
        self,
        channel: aio.Channel,
        metadata: tuple[tuple[str, str], ...],
        call: StreamCall[ItemT, FinalT],
        attempts: Attempts,
    ) -> None:
        self._method = channel.unary_stream(call.path, serialize, call.decode)
        self._metadata = metadata
        self._call = call
        self._attempts = attempts
        self._fold = call.fold()
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
                    async for message in self._rpc:
                        was_answered = True
                        item = self._fold.add(message)
                        if item is not None:
                            yield item
                    self._attempts.answered()
                    self._outcome.set(self._fold.final())
                except grpc.RpcError as failure:
                    delay_s = self._attempts.delay_after(failure, was_answered=was_answered)
                    await self._wait(delay_s)
                    self._rpc = self._begin()
        except asyncio.CancelledError as error:
            if _is_task_cancelled():
                raise
            raise Cancelled(_CANCELLED) from error
        finally:
            self.cancel()

    def _begin(self) -> Any:
        return self._method(
            self._call.request, timeout=self._attempts.remaining_s(), metadata=self._metadata
        )

    async def _wait(self, delay_s: float) -> None:
        """Wait for the next attempt, or for `cancel`."""
        try:
            async with asyncio.timeout(delay_s):
                await self._was_cancelled.wait()
        except TimeoutError:
            return
        raise Cancelled(_CANCELLED)


def _is_task_cancelled() -> bool:
    """Whether this very task was cancelled; gRPC says so as well when only its call was."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
