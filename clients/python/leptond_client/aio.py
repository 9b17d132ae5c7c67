"""The client for asyncio: `Client`, method by method, with `await` and `async for`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc
from grpc import aio

from leptond.v1 import embedding_pb2
from leptond_client import batch_calls, calls, options, values
from leptond_client.aio_stream import AsyncEmbedStream, AsyncStream, is_task_cancelled
from leptond_client.bulk import EMBED_STREAM, Bulk
from leptond_client.calls import StreamCall, UnaryCall
from leptond_client.connection import (
    Attempts,
    ConnectionKeywords,
    ConnectionOptions,
    ConnectionState,
    resolve_address,
    serialize,
)
from leptond_client.errors import Cancelled
from leptond_client.requests import MessageLike, Prompt

__all__ = ["AsyncClient", "AsyncEmbedStream", "AsyncStream"]

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

    async def embed(
        self,
        model: str,
        texts: str | Iterable[Prompt],
        **given: Unpack[options.EmbedOptions],
    ) -> values.Embeddings:
        """Make vectors of texts, or of lists of token ids. One that is wrong fails the call."""
        return await self._run(batch_calls.embed(model, texts, given))

    def embed_stream(
        self,
        model: str,
        texts: Iterable[Prompt],
        **given: Unpack[options.EmbedStreamOptions],
    ) -> AsyncEmbedStream:
        """Make vectors of any number of texts, in order and in bounded memory.

        Texts that are wrong do not end it: they are named in the batches. `texts` is read while
        the stream is.
        """
        bulk = Bulk(model, texts, given)
        decode = embedding_pb2.EmbedStreamResponse.FromString
        method = self._channel.stream_stream(EMBED_STREAM, serialize, decode)
        attempts = Attempts(self._settings, self._state, given)
        return AsyncEmbedStream(partial(method, metadata=self._settings.metadata), bulk, attempts)

    async def classify(
        self,
        model: str,
        texts: str | Iterable[Prompt | tuple[str, str]],
        **given: Unpack[options.ClassifyOptions],
    ) -> values.Classifications:
        """Label texts, or pairs of texts."""
        return await self._run(batch_calls.classify(model, texts, given))

    async def rerank(
        self,
        model: str,
        query: str,
        documents: Iterable[str],
        **given: Unpack[options.RerankOptions],
    ) -> values.Ranking:
        """Order documents by their relevance to a query, best first."""
        return await self._run(batch_calls.rerank(model, query, documents, given))

    async def translate(
        self,
        model: str,
        texts: str | Iterable[str],
        **given: Unpack[options.TranslateOptions],
    ) -> values.Translations:
        """Translate texts."""
        return await self._run(batch_calls.translate(model, texts, given))

    def translate_stream(
        self,
        model: str,
        texts: str | Iterable[str],
        **given: Unpack[options.TranslateOptions],
    ) -> AsyncStream[values.TranslationPiece, values.Translations]:
        """Translate texts, sentence by sentence; the whole is the stream's `result`."""
        return self._open(batch_calls.translate_stream(model, texts, given))

    async def score(
        self,
        model: str,
        inputs: str | Iterable[str | values.ScoreInput],
        **given: Unpack[options.ScoreOptions],
    ) -> values.Scores:
        """Ask how likely texts are, each on its own or after a prompt or a conversation."""
        return await self._run(batch_calls.score(model, inputs, given))

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
                if is_task_cancelled():
                    raise
                raise Cancelled("the client was closed") from error
            else:
                attempts.answered()
                return call.convert(response)
            await asyncio.sleep(delay_s)

    def _open(self, call: StreamCall[ItemT, FinalT]) -> AsyncStream[ItemT, FinalT]:
        attempts = Attempts(self._settings, self._state, call.options)
        method = self._channel.unary_stream(call.path, serialize, call.decode)
        begin = partial(method, call.request, metadata=self._settings.metadata)
        return AsyncStream(begin, call.fold(), attempts)
