"""The client for ordinary, blocking code."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc

from leptond.v1 import embedding_pb2
from leptond_client import batch_calls, calls, options, values
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
from leptond_client.requests import MessageLike, Prompt
from leptond_client.stream import EmbedStream, Stream

__all__ = ["Client", "EmbedStream", "Stream"]

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

    def embed(
        self,
        model: str,
        texts: str | Iterable[Prompt],
        **given: Unpack[options.EmbedOptions],
    ) -> values.Embeddings:
        """Make vectors of texts, or of lists of token ids. One that is wrong fails the call."""
        return self._run(batch_calls.embed(model, texts, given))

    def embed_stream(
        self,
        model: str,
        texts: Iterable[Prompt],
        **given: Unpack[options.EmbedStreamOptions],
    ) -> EmbedStream:
        """Make vectors of any number of texts, in order and in bounded memory.

        Texts that are wrong do not end it: they are named in the batches. `texts` is read while
        the stream is.
        """
        bulk = Bulk(model, texts, given)
        decode = embedding_pb2.EmbedStreamResponse.FromString
        method = self._channel.stream_stream(EMBED_STREAM, serialize, decode)
        attempts = Attempts(self._settings, self._state, given)
        return EmbedStream(partial(method, metadata=self._settings.metadata), bulk, attempts)

    def classify(
        self,
        model: str,
        texts: str | Iterable[Prompt | tuple[str, str]],
        **given: Unpack[options.ClassifyOptions],
    ) -> values.Classifications:
        """Label texts, or pairs of texts."""
        return self._run(batch_calls.classify(model, texts, given))

    def rerank(
        self,
        model: str,
        query: str,
        documents: Iterable[str],
        **given: Unpack[options.RerankOptions],
    ) -> values.Ranking:
        """Order documents by their relevance to a query, best first."""
        return self._run(batch_calls.rerank(model, query, documents, given))

    def translate(
        self,
        model: str,
        texts: str | Iterable[str],
        **given: Unpack[options.TranslateOptions],
    ) -> values.Translations:
        """Translate texts."""
        return self._run(batch_calls.translate(model, texts, given))

    def translate_stream(
        self,
        model: str,
        texts: str | Iterable[str],
        **given: Unpack[options.TranslateOptions],
    ) -> Stream[values.TranslationPiece, values.Translations]:
        """Translate texts, sentence by sentence; the whole is the stream's `result`."""
        return self._open(batch_calls.translate_stream(model, texts, given))

    def score(
        self,
        model: str,
        inputs: str | Iterable[str | values.ScoreInput],
        **given: Unpack[options.ScoreOptions],
    ) -> values.Scores:
        """Ask how likely texts are, each on its own or after a prompt or a conversation."""
        return self._run(batch_calls.score(model, inputs, given))

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
        method = self._channel.unary_stream(call.path, serialize, call.decode)
        begin = partial(method, call.request, metadata=self._settings.metadata)
        return Stream(begin, call.fold(), attempts)


def _open_channel(settings: ConnectionOptions) -> grpc.Channel:
    arguments = settings.channel_arguments()
    if settings.credentials is None:
        return grpc.insecure_channel(settings.address, arguments)
    return grpc.secure_channel(settings.address, settings.credentials, arguments)
