"""One RPC from its first byte to its status: identity, deadline, commitment, errors, log line.

Every method of every service, ours and the standard ones but channelz, is registered through
`CallRunner`, which wraps it so that all calls obey the same rules. On the event loop only.

I1  The retry rule: no initial metadata leaves before `Call.commit`, which a method calls once its
    work was admitted. A refusal therefore carries none, and the caller may repeat it.
I2  Every call ends exactly once, with one log line and one span, whatever happened.
I3  Bytes that are no message are INVALID_ARGUMENT; a class name of ours never reaches a caller.
"""

from __future__ import annotations

import asyncio
import logging
import reprlib
import secrets
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Mapping,
)
from contextlib import asynccontextmanager
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf.message import DecodeError, Message

from leptond.errors import (
    DeadlineExpired,
    InvalidRequest,
    InvariantViolation,
    LeptondError,
    RequestCancelled,
    RequestTooLarge,
    UnsupportedCapability,
)
from leptond.server.status import STATUS_OF, to_wire_error
from leptond.telemetry import Call as CallRecord
from leptond.telemetry import Telemetry, bind_request

__all__ = ["Call", "CallRunner", "Sender", "Undecodable", "decoder"]

_LOG = logging.getLogger(__name__)
_REQUEST_ID_KEY = "x-request-id"
_TRACE_ID_KEY = "x-trace-id"
_TIMEOUT_SLACK = 0.02
_TIMEOUT_SLACK_S = 0.01
_STANDARD = "grpc."  # health watches and reflection are no work that a drain waits for

Behaviour = Callable[[Any, "Call"], Awaitable[Any]]
StatusCodes = Mapping[type[LeptondError], grpc.StatusCode]


class Sender(Protocol):
    """What sends a call's messages, for those who look for slow readers."""

    @property
    def with_writer_since(self) -> float | None:
        """Since when a message waits to be read, monotonic seconds; None while none does."""
        ...


class Undecodable:
    """Stands for a request whose bytes are not a message of its type."""

    __slots__ = ("type_name",)

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name


def decoder(message: type[Message]) -> Callable[[bytes], Message | Undecodable]:
    """A request deserializer that never raises (I3)."""
    parse = message.FromString
    type_name = message.DESCRIPTOR.full_name

    def decode(data: bytes) -> Message | Undecodable:
        try:
            return parse(data)
        except DecodeError:
            return Undecodable(type_name)

    return decode


class Call:
    """What a method knows of the call that it answers.

    Attributes:
        id: the daemon's own unique id.
        started: monotonic seconds of its arrival.
        deadline: monotonic seconds, or None.
        is_work: whether a drain waits for it.
        is_committed: whether initial metadata was sent.
        record: its span and its log line.
        stream: what it is sending on from, if it is, for those who look for slow readers.
        trailers: trailing metadata that the method adds.
        write: sends one message of a streaming answer; one at a time.
    """

    __slots__ = (
        "_context", "_failure", "_task", "deadline", "id", "is_committed", "is_work", "record",
        "started", "stream", "trailers", "write",
    )  # fmt: skip

    def __init__(self, call_id: str, context: Any, record: CallRecord, *, is_work: bool) -> None:
        self.id = call_id
        self.is_work = is_work
        self.record = record
        self.started = time.monotonic()
        remaining = context.time_remaining()
        self.deadline = None if remaining is None else self.started + remaining
        self.is_committed = False
        self.stream: Sender | None = None
        self.trailers: tuple[tuple[str, str], ...] = ()
        self.write: Callable[[Message], Awaitable[None]] = context.write
        self._context = context
        self._failure: LeptondError | None = None
        self._task = asyncio.current_task()

    def metadata(self, key: str) -> str | None:
        """The text that the caller sent under `key`, in lower case; the last one of several."""
        found = dict(self._context.invocation_metadata()).get(key)
        return found if isinstance(found, str) else None

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the deadline, or None when there is none."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def limit_time(self, seconds: float) -> None:
        """Bring the deadline forward: the call may take so long from its arrival."""
        limit = self.started + seconds
        self.deadline = limit if self.deadline is None else min(self.deadline, limit)

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """End the block at the deadline; for what does not look at it by itself.

        Raises:
            DeadlineExpired: the deadline passed.
        """
        try:
            async with asyncio.timeout(self.remaining_s):
                yield
        except TimeoutError as error:
            raise DeadlineExpired("the deadline passed") from error

    async def commit(self) -> None:
        """Send initial metadata: the work was admitted, the call must not be repeated (I1)."""
        if not self.is_committed:
            self.is_committed = True
            await self._context.send_initial_metadata(((_REQUEST_ID_KEY, self.id),))

    def fail(self, error: LeptondError) -> None:
        """End the call with `error` from outside of its method, wherever that waits now."""
        if self._failure is None and self._task is not None:
            self._failure = error
            self._task.cancel()

    def take_failure(self) -> LeptondError | None:
        """The error that `fail` left, when the running cancellation is its doing."""
        failure, self._failure = self._failure, None
        if failure is not None and self._task is not None:
            self._task.uncancel()
        return failure


class CallRunner:
    """Wraps methods into gRPC handlers.

    Args:
        telemetry: makes the span of every call.
        max_response_bytes: longest message of a unary answer.
    """

    def __init__(self, telemetry: Telemetry, max_response_bytes: int) -> None:
        self._telemetry = telemetry
        self._max_response_bytes = max_response_bytes
        self._active: set[Call] = set()
        self._num_work = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def wait_idle(self) -> None:
        """Wait until no call of an inference service runs; those of the standard ones may."""
        await self._is_idle.wait()

    @property
    def active(self) -> frozenset[Call]:
        """Calls that run now."""
        return frozenset(self._active)

    def handler(
        self,
        service: str,
        method: str,
        behaviour: Behaviour,
        request_type: type[Message],
        response_type: type[Message],
        *,
        request_streaming: bool,
        response_streaming: bool,
        codes: StatusCodes = STATUS_OF,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Register one method.

        Args:
            service: full name of the service.
            method: bare name of the method.
            behaviour: `await behaviour(request, call)`. It returns the response of a unary
                method; a streaming one sends with `call.write` and returns None. For a
                request-streaming method `request` is an async iterator.
            request_type: for the decoder.
            response_type: for the encoder.
            request_streaming: whether the caller streams, as the proto says.
            response_streaming: whether the method streams.
            codes: the status of every error.
        """
        path = f"{service}/{method}"
        wrap = self._streaming if response_streaming else self._unary
        run = wrap(path, behaviour, codes)
        kind = ("stream" if request_streaming else "unary") + (
            "_stream" if response_streaming else "_unary"
        )
        make: Callable[..., grpc.RpcMethodHandler[Any, Any]] = getattr(
            grpc, f"{kind}_rpc_method_handler"
        )
        return make(
            run,
            request_deserializer=decoder(request_type),
            response_serializer=response_type.SerializeToString,
        )

    def fallback(self, described: Collection[str]) -> grpc.GenericRpcHandler:
        """Answers every method that nothing else does: UNIMPLEMENTED, with its name.

        Args:
            described: paths of the methods that the protos have; others are not even known.
        """
        return _Fallback(self._run_unserved, frozenset(described))

    async def _run_unserved(self, path: str, context: Any, *, is_known: bool) -> None:
        async def refuse(request: Any, call: Call) -> NoReturn:
            del request, call
            what = path if is_known else f"the method {reprlib.repr(path)}"
            raise UnsupportedCapability(f"{what} is not served by this daemon")

        await self._run(path, refuse, None, context, is_known=is_known)

    def _unary(
        self, path: str, behaviour: Behaviour, codes: StatusCodes
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def run(request: Any, context: Any) -> Any:
            return await self._run(path, bounded, request, context, codes=codes)

        async def bounded(request: Any, call: Call) -> Any:
            response = await behaviour(request, call)
            num_bytes = response.ByteSize()
            if num_bytes > self._max_response_bytes:
                msg = f"the answer has {num_bytes} bytes; at most {self._max_response_bytes} leave"
                raise RequestTooLarge(msg)
            return response

        return run

    def _streaming(
        self, path: str, behaviour: Behaviour, codes: StatusCodes
    ) -> Callable[[Any, Any], Awaitable[None]]:
        async def run(request: Any, context: Any) -> None:
            await self._run(path, behaviour, request, context, codes=codes)

        return run

    async def _run(
        self,
        path: str,
        behaviour: Behaviour,
        request: Any,
        context: Any,
        *,
        is_known: bool = True,
        codes: StatusCodes = STATUS_OF,
    ) -> Any:
        call_id = secrets.token_hex(8)
        record = self._telemetry.start_call(
            path,
            context.invocation_metadata(),
            request_id=call_id,
            peer=context.peer(),
            is_known=is_known,
        )
        bind_request(call_id, record.trace_id)
        call = Call(call_id, context, record, is_work=not path.startswith(_STANDARD))
        self._active.add(call)
        self._num_work += call.is_work
        if self._num_work:
            self._is_idle.clear()
        failure: BaseException | None = None
        try:
            response = await behaviour(_checked(request), call)
        except asyncio.CancelledError:
            failure = call.take_failure()
            if failure is not None:
                await self._abort(call, context, failure, codes)
            failure = _why_cancelled(call)
            raise
        except Exception as error:
            failure = error
            await self._abort(call, context, error, codes)
        else:
            context.set_trailing_metadata(self._trailer(call))
            return response
        finally:
            self._active.discard(call)
            self._num_work -= call.is_work
            if not self._num_work:
                self._is_idle.set()
            self._end(call, failure, codes)

    async def _abort(
        self, call: Call, context: Any, error: Exception, codes: StatusCodes
    ) -> NoReturn:
        """Send the error as the call's status."""
        wire = to_wire_error(error, call.id, is_committed=call.is_committed, codes=codes)
        await context.abort(wire.code, wire.message, (*wire.metadata, *self._trailer(call)))
        raise InvariantViolation("abort returned")

    @staticmethod
    def _trailer(call: Call) -> tuple[tuple[str, str], ...]:
        trace_id = call.record.trace_id
        pairs = ((_REQUEST_ID_KEY, call.id), *call.trailers)
        return pairs if trace_id is None else (*pairs, (_TRACE_ID_KEY, trace_id))

    def _end(self, call: Call, failure: BaseException | None, codes: StatusCodes) -> None:
        """The one place where a call is over (I2)."""
        if failure is None:
            call.record.end(grpc.StatusCode.OK.name)
            return
        wire = to_wire_error(failure, call.id, is_committed=call.is_committed, codes=codes)
        if not isinstance(failure, LeptondError) or not failure.is_public:
            _LOG.error("call failed request_id=%s", call.id, exc_info=failure)
        call.record.end(wire.code.name, wire.reason)


class _Fallback(grpc.GenericRpcHandler):
    """A handler for any path."""

    def __init__(self, run: Callable[..., Awaitable[None]], described: frozenset[str]) -> None:
        self._run = run
        self._described = described

    def service(self, handler_call_details: Any) -> Any:
        """See `grpc.GenericRpcHandler`. Of the stream kind, which asks for no message."""
        path = handler_call_details.method.removeprefix("/")

        async def run(requests: Any, context: Any) -> None:
            del requests
            await self._run(path, context, is_known=path in self._described)

        return grpc.stream_stream_rpc_method_handler(run)


def _checked(request: Any) -> Any:
    """The request, or the requests of a stream, none of them undecodable."""
    if isinstance(request, AsyncIterable):
        return _checked_stream(request)
    if isinstance(request, Undecodable):
        msg = f"the request is not a valid {request.type_name}: corrupt bytes, or text not in UTF-8"
        raise InvalidRequest(msg)
    return request


async def _checked_stream(requests: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)


def _why_cancelled(call: Call) -> LeptondError:
    """A deadline and a change of mind look alike: the client resets the stream at either.

    A timeout goes over the wire rounded up, to three digits at worst, so the client's own clock
    strikes a little before ours.
    """
    if call.deadline is not None:
        slack_s = _TIMEOUT_SLACK_S + _TIMEOUT_SLACK * (call.deadline - call.started)
        if call.deadline - time.monotonic() <= slack_s:
            return DeadlineExpired("the deadline passed")
    return RequestCancelled("the caller cancelled")
