"""A daemon that does what a test tells it: a real gRPC server, with the wire rules of leptond.

Behaviours are plain functions `behave(request, context)`; for a method that streams they return an
iterator. The base dependencies of the client are all it needs.
"""

from __future__ import annotations

import gc
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from leptond.v1 import (
    chat_pb2,
    classification_pb2,
    common_pb2,
    embedding_pb2,
    generation_pb2,
    input_error_pb2,
    management_pb2,
    message_pb2,
    model_pb2,
    scoring_pb2,
    tokenization_pb2,
    translation_pb2,
)
from leptond_client import health_messages

PATIENCE_S = 20.0
"""How long a test waits for what must happen; never how long it takes."""

REQUEST_ID = "0123456789abcdef"

REQUEST_TYPES = {
    "Generate": generation_pb2.GenerateRequest,
    "GenerateStream": generation_pb2.GenerateStreamRequest,
    "Chat": chat_pb2.ChatRequest,
    "ChatStream": chat_pb2.ChatStreamRequest,
    "Tokenize": tokenization_pb2.TokenizeRequest,
    "Detokenize": tokenization_pb2.DetokenizeRequest,
    "ListModels": management_pb2.ListModelsRequest,
    "LoadModel": management_pb2.LoadModelRequest,
    "UnloadModel": management_pb2.UnloadModelRequest,
    "GetLoad": management_pb2.GetLoadRequest,
    "Embed": embedding_pb2.EmbedRequest,
    "EmbedStream": embedding_pb2.EmbedStreamRequest,
    "Classify": classification_pb2.ClassifyRequest,
    "Rerank": classification_pb2.RerankRequest,
    "Translate": translation_pb2.TranslateRequest,
    "TranslateStream": translation_pb2.TranslateStreamRequest,
    "Score": scoring_pb2.ScoreRequest,
    "Check": health_messages.HealthCheckRequest,
    "Watch": health_messages.HealthCheckRequest,
    "List": health_messages.HealthListRequest,
}
STREAMED = {"GenerateStream", "ChatStream", "TranslateStream", "LoadModel", "Watch"}
BOTH_WAYS = {"EmbedStream"}  # their behaviours get an iterator of requests

Behaviour = Callable[[Any, grpc.ServicerContext], Any]


@dataclass
class ScriptedDaemon:
    """A server at one address; `calls` holds every request with its method and metadata."""

    address: str
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    calls: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    _server: grpc.Server = field(init=False)
    _threads: ThreadPoolExecutor = field(init=False)

    def start(self) -> None:
        self._threads = ThreadPoolExecutor(8, "scripted")
        self._server = grpc.server(
            self._threads,
            handlers=[_Handlers(self)],
            options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
        )
        port = self._server.add_insecure_port(self.address)
        if self.address.endswith(":0"):
            self.address = f"{self.address.removesuffix(':0')}:{port}"
        self._server.start()

    def stop(self) -> None:
        """Stop as a process does that ends: connections closed, the socket's file gone.

        A stopped server of gRPC keeps a call that raced its stop open until it is dropped, and
        removes the file only some time after.
        """
        self._server.stop(None).wait(PATIENCE_S)
        self._threads.shutdown()
        del self._server
        gc.collect()
        give_up_at = time.monotonic() + PATIENCE_S
        path = Path(self.address.removeprefix("unix:"))
        while path.exists():
            assert time.monotonic() < give_up_at
            time.sleep(0.01)

    def requests(self, method: str) -> list[Any]:
        return [request for name, request, _ in self.calls if name == method]

    @contextmanager
    def running(self) -> Iterator[ScriptedDaemon]:
        self.start()
        try:
            yield self
        finally:
            self.stop()


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, daemon: ScriptedDaemon) -> None:
        self._daemon = daemon

    def service(self, details: Any) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = details.method.rpartition("/")[2]
        if method not in self._daemon.behaviours:
            return None

        def behave(request: Any, context: Any) -> Any:
            metadata = dict(context.invocation_metadata())
            self._daemon.calls.append((method, request, metadata))
            self._daemon.arrived.set()
            return self._daemon.behaviours[method](request, context)

        make: Any = grpc.unary_unary_rpc_method_handler
        if method in STREAMED:
            make = grpc.unary_stream_rpc_method_handler
        elif method in BOTH_WAYS:
            make = grpc.stream_stream_rpc_method_handler
        decode = REQUEST_TYPES[method].FromString
        return make(behave, decode, lambda message: message.SerializeToString())


# ------------------------------------------------------------------------------------ behaviours
def commit(context: Any) -> None:
    """Admit the call, as the daemon does: from now on it must not be repeated."""
    context.send_initial_metadata((("x-request-id", REQUEST_ID),))


def refuse(
    context: Any,
    code: grpc.StatusCode,
    message: str = "no",
    *,
    reason: str = "",
    field_path: str = "",
    retry_after_s: float | None = None,
    pushback_ms: str | None = None,
) -> None:
    """End the call with an error in the daemon's own form."""
    details: list[Any] = [
        error_details_pb2.ErrorInfo(reason=reason, metadata={"request_id": REQUEST_ID})
    ]
    if field_path:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field_path)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        pushback_ms = pushback_ms or str(round(retry_after_s * 1000))
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    trailer: list[tuple[str, str | bytes]] = [
        ("x-request-id", REQUEST_ID),
        ("grpc-status-details-bin", status.SerializeToString()),
    ]
    if pushback_ms is not None:
        trailer.append(("grpc-retry-pushback-ms", pushback_ms))
    context.set_trailing_metadata(trailer)
    context.abort(code, message)


def _watch(context: Any, gone: threading.Event) -> None:
    """Set `gone` when the caller leaves, or if it has left."""
    if not context.add_callback(gone.set):
        gone.set()


def waits_until_cancelled(gone: threading.Event) -> Behaviour:
    """A stream of one piece that never ends; `gone` is set when its caller leaves."""

    def behave(request: Any, context: Any) -> Iterator[Any]:
        _watch(context, gone)
        commit(context)
        yield generation_pb2.GenerateStreamResponse(chunk=piece("first"))
        gone.wait(PATIENCE_S)

    return behave


# -------------------------------------------------------------------------------------- messages
def info(num_tokens: int) -> common_pb2.ResponseInfo:
    return common_pb2.ResponseInfo(
        request_id="label",
        server_request_id=REQUEST_ID,
        model="toy:fake",
        model_version=3,
        usage=common_pb2.Usage(prompt_tokens=5, completion_tokens=num_tokens),
        timing=common_pb2.Timing(first_token_ms=120.0, decode_ms=500.0, total_ms=700.0),
    )


def piece(text: str, **fields: Any) -> generation_pb2.TokenChunk:
    ids = [ord(character) for character in text]
    return generation_pb2.TokenChunk(
        text=text,
        token_ids=ids,
        token_bytes=[character.encode() for character in text],
        **fields,
    )


def pieces(*texts: str) -> list[generation_pb2.GenerateStreamResponse]:
    """A whole stream, the last text in its final message."""
    *first, last = texts
    num_tokens = sum(map(len, texts))
    end = piece(last, finish_reason=common_pb2.FINISH_REASON_STOP, stop_token_id=2)
    return [
        *(generation_pb2.GenerateStreamResponse(chunk=piece(text)) for text in first),
        generation_pb2.GenerateStreamResponse(chunk=end, info=info(num_tokens)),
    ]


def never_answers(gone: threading.Event) -> Behaviour:
    """A call without an answer; `gone` is set when its caller leaves."""

    def behave(request: Any, context: Any) -> Any:
        _watch(context, gone)
        gone.wait(PATIENCE_S)
        return generation_pb2.GenerateResponse()

    return behave


def streams(*texts: str) -> Behaviour:
    """A stream of these texts."""

    def behave(request: Any, context: Any) -> Iterator[Any]:
        commit(context)
        yield from pieces(*texts)

    return behave


def answers(text: str) -> Behaviour:
    """The whole answer to a raw prompt."""

    def behave(request: Any, context: Any) -> Any:
        commit(context)
        choice = generation_pb2.GenerationChoice(
            text=text,
            token_ids=[ord(character) for character in text],
            finish_reason=common_pb2.FINISH_REASON_LENGTH,
        )
        return generation_pb2.GenerateResponse(choices=[choice], info=info(len(text)))

    return behave


def says(text: str) -> Behaviour:
    """The whole answer to a conversation."""

    def behave(request: Any, context: Any) -> Any:
        commit(context)
        message = message_pb2.Message(
            role=message_pb2.ROLE_ASSISTANT, content=[message_pb2.ContentPart(text=text)]
        )
        choice = chat_pb2.ChatChoice(
            message=message, token_ids=[7], finish_reason=common_pb2.FINISH_REASON_STOP
        )
        return chat_pb2.ChatResponse(choices=[choice], info=info(1))

    return behave


def vectors(texts: Iterable[str]) -> embedding_pb2.EmbeddingBatch:
    """For each text a vector of two numbers: its length, and 1."""
    lengths = [len(text) for text in texts]
    return embedding_pb2.EmbeddingBatch(
        data=b"".join(struct.pack("<2f", length, 1.0) for length in lengths),
        element_type=embedding_pb2.ELEMENT_TYPE_FLOAT32,
        dimensions=2,
        num_vectors=len(lengths),
        num_tokens=lengths,
    )


def embeds_in_bulk(*wrong: str) -> Behaviour:
    """Batches of vectors; the texts in `wrong` fail, each for itself."""

    def behave(requests: Any, context: Any) -> Iterator[Any]:
        for number, request in enumerate(requests):
            if number == 0:
                commit(context)
            errors = [
                input_error_pb2.InputError(
                    index=index, status=status_pb2.Status(code=3, message=f"{text} is wrong")
                )
                for index, text in enumerate(request.texts)
                if text in wrong
            ]
            yield embedding_pb2.EmbedStreamResponse(
                batch_id=request.batch_id, embeddings=vectors(request.texts), errors=errors
            )
        yield embedding_pb2.EmbedStreamResponse(info=info(0))

    return behave


def model(name: str, *tasks: model_pb2.Task.ValueType) -> model_pb2.Model:
    variant = model_pb2.ModelVariant(
        name=f"{name}:fake",
        version=3,
        is_default=True,
        precision="float32",
        backend="fake",
        capabilities=model_pb2.ModelCapabilities(tasks=tasks, max_context_tokens=2048),
        state=model_pb2.MODEL_STATE_READY,
        memory_bytes=3 << 20,
    )
    return model_pb2.Model(name=name, default_variant="fake", versions=[3], variants=[variant])


def lists(*models: model_pb2.Model) -> Behaviour:
    return lambda request, context: management_pb2.ListModelsResponse(models=models)


GENERATIVE = (model_pb2.TASK_GENERATE, model_pb2.TASK_CHAT, model_pb2.TASK_TOKENIZE)
