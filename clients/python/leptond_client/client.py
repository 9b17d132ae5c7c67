"""The client for ordinary, blocking code."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

import grpc

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

__all__ = ["Client", "Stream"]

T = TypeVar("T")
ItemT = TypeVar("ItemT")
FinalT = TypeVar("FinalT")


class Client:
    """A connection to a daemon. Any thread may use it, and several at once.

    It connects with its first call and connects again when it has to. Close it, or use it in a
    `with` block:

        with Client() as client:
            print(client.chat("smollm2-135m-instruct", [Message("user", "Hello!")]).text)

    Every method raises `LeptonError`, and ends at once on Ctrl-C. What the keyword arguments mean
    is said in `leptond_client.options`, and of the constructor's in `ConnectionOptions`.

    Raises:
        ValueError: the address is none.
    """

    def __init__(self, address: str | None = None, **settings: Unpack[ConnectionKeywords]) -> None:
        self._settings = ConnectionOptions(resolve_address(address), **settings)
        self._state = ConnectionState()
        self._channel = _open_channel(self._settings)

    @property
    def address(self) -> str:
        """Where the daemon is."""
        return self._settings.address

    def close(self) -> None:
        """Cancel what runs and disconnect."""
        self._state.is_closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def generate(
        self, model: str, prompt: Prompt, **given: Unpack[options.GenerateOptions]
    ) -> values.Generation:
        """Continue a raw prompt: text, or token ids. No chat template is applied."""
        return self._run(calls.generate(model, prompt, given))

    def generate_stream(
        self, model: str, prompt: Prompt, **given: Unpack[options.GenerateStreamOptions]
    ) -> Stream[values.Delta, values.Generation]:
        """Continue a raw prompt, piece by piece; the whole is the stream's `result`."""
        return self._open(calls.generate_stream(model, prompt, given))

    def chat(
        self,
        model: str,
        messages: Iterable[MessageLike],
        **given: Unpack[options.ChatOptions],
    ) -> values.Generation:
        """Answer a conversation, oldest message first."""
        return self._run(calls.chat(model, messages, given))

    def chat_stream(
        self,
        model: str,
        messages: Iterable[MessageLike],
        **given: Unpack[options.ChatStreamOptions],
    ) -> Stream[values.Delta, values.Generation]:
        """Answer a conversation, piece by piece; the whole is the stream's `result`."""
        return self._open(calls.chat_stream(model, messages, given))

    def tokenize(
        self,
        model: str,
        source: str | Iterable[MessageLike],
        **given: Unpack[options.TokenizeOptions],
    ) -> values.Tokenization:
        """Make tokens of a text, or of a conversation as `chat` would render it."""
        return self._run(calls.tokenize(model, source, given))

    def detokenize(
        self, model: str, token_ids: Sequence[int], **given: Unpack[options.DetokenizeOptions]
    ) -> str:
        """Make a text of tokens; bytes that are no character become U+FFFD."""
        return self._run(calls.detokenize(model, token_ids, given))

    def models(
        self, name: str = "", **given: Unpack[options.CallOptions]
    ) -> tuple[values.Model, ...]:
        """List the models of the daemon's store, or the one of that name."""
        return self._run(calls.models(name, given))

    def load_model(
        self, name: str, **given: Unpack[options.CallOptions]
    ) -> Stream[values.LoadProgress, values.ModelVariant]:
        """Load a model and follow how far it is. Leaving the stream does not stop the load.

        Only addresses for administration answer; elsewhere it is `PermissionDenied`.
        """
        return self._open(calls.load_model(name, given))

    def unload_model(
        self, name: str, **given: Unpack[options.CallOptions]
    ) -> values.UnloadedModels:
        """Unload a variant, or all of a model, once their calls are done.

        Only addresses for administration answer; elsewhere it is `PermissionDenied`.
        """
        return self._run(calls.unload_model(name, given))

    def get_load(self, name: str = "", **given: Unpack[options.CallOptions]) -> values.DaemonLoad:
        """Ask how busy the daemon is, and each loaded model or the one of that name."""
        return self._run(calls.get_load(name, given))

    def check(self, name: str = "", **given: Unpack[options.CallOptions]) -> values.ServingStatus:
        """Ask for the health of the daemon, or of the model or service of that name.

        Raises:
            NotFound: nothing has that name.
        """
        return self._run(calls.check(name, given))

    def watch(
        self, name: str = "", **given: Unpack[options.CallOptions]
    ) -> Stream[values.ServingStatus, None]:
        """Follow the health of a name: its status now, and again whenever it changes."""
        return self._open(calls.watch(name, given))

    def health(self, **given: Unpack[options.CallOptions]) -> dict[str, values.ServingStatus]:
        """Ask for the health of everything, by name; "" is the daemon."""
        return self._run(calls.health(given))

    def _run(self, call: UnaryCall[T]) -> T:
        method = self._channel.unary_unary(call.path, serialize, call.decode)
        attempts = Attempts(self._settings, self._state, call.options)
        while True:
            try:
                response = method(
                    call.request,
                    timeout=attempts.remaining_s(),
                    metadata=self._settings.metadata,
                )
            except grpc.RpcError as failure:
                delay_s = attempts.delay_after(failure)
            else:
                attempts.answered()
                return call.convert(response)
            time.sleep(delay_s)

    def _open(self, call: StreamCall[ItemT, FinalT]) -> Stream[ItemT, FinalT]:
        attempts = Attempts(self._settings, self._state, call.options)
        return Stream(self._channel, self._settings.metadata, call, attempts)


class Stream(Generic[ItemT, FinalT]):
    """The pieces of an answer as they come, for one reader.

    The call is under way when the stream is made. Leaving the loop over it, by `break`, `return`,
    an error or Ctrl-C, cancels the call at once; so do `cancel` and the end of a `with` block.
    """

    def __init__(
        self,
        channel: grpc.Channel,
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
                    for message in self._rpc:
                        was_answered = True
                        item = self._fold.add(message)
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
        return self._method(
            self._call.request, timeout=self._attempts.remaining_s(), metadata=self._metadata
        )

    def _wait_after(self, failure: grpc.RpcError, *, was_answered: bool) -> None:
        """Wait for the next attempt, or raise why there is none."""
        if not self._was_cancelled.is_set():
            delay_s = self._attempts.delay_after(failure, was_answered=was_answered)
            if not self._was_cancelled.wait(delay_s):
                return
        raise Cancelled("the stream was cancelled by its reader") from failure


def _open_channel(settings: ConnectionOptions) -> grpc.Channel:
    arguments = settings.channel_arguments()
    if settings.credentials is None:
        return grpc.insecure_channel(settings.address, arguments)
    return grpc.secure_channel(settings.address, settings.credentials, arguments)
