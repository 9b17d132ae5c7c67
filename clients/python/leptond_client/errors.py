"""Errors of the client: one class per way in which a call can end badly.

    LeptonError
    ├── Aborted             the daemon gave up, for example because the stream was not read
    ├── Cancelled           the call was cancelled
    ├── DeadlineExceeded    the timeout passed, or would have passed before the first token
    ├── FailedPrecondition  an operator must act: the model failed to load, an engine is missing
    ├── InternalError       a fault of the daemon; its log knows more, under `request_id`
    ├── InvalidRequest      the request is wrong; `field` says where
    ├── NotFound            no such model
    ├── PermissionDenied    not allowed, or not on this address
    ├── ResourceExhausted   too much waits already, or there is no memory; see `retry_after_s`
    ├── Unauthenticated     the daemon wants to know who calls
    ├── Unavailable         nobody answers, or the daemon loads or stops; see `retry_after_s`
    └── Unsupported         this daemon or this model does not do that; `field` says what

Every public method of the client raises these and nothing else of gRPC's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

__all__ = [
    "Aborted",
    "Cancelled",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InternalError",
    "InvalidRequest",
    "LeptonError",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "RpcFailure",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "from_rpc_failure",
    "from_status",
]

_DETAILS_KEY = "grpc-status-details-bin"
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_REQUEST_ID_KEY = "x-request-id"

Metadata = Iterable[tuple[str, str | bytes]]


class LeptonError(Exception):
    """Base of every error of the client.

    Args:
        message: one sentence, the daemon's own where it came from there.
        code: the gRPC status; by default that of the class.
        reason: the daemon's stable machine-readable reason, such as `QUEUE_FULL`; may be empty.
        field: path of the offending request field, such as `sampling.temperature`; may be empty.
        request_id: the daemon's id of the call, to be found in its log; may be empty.
        retry_after_s: when the daemon asks to be tried again, in seconds; None when it did not.
        details: further facts that the daemon gave.
        was_admitted: whether the call may have been run. A call that was not can be repeated
            without harm.
        is_from_daemon: whether a daemon said so; otherwise gRPC or this client did.
        must_not_repeat: the daemon asked not to be tried again.
    """

    default_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        field: str = "",
        request_id: str = "",
        retry_after_s: float | None = None,
        details: Mapping[str, str] | None = None,
        was_admitted: bool = False,
        is_from_daemon: bool = False,
        must_not_repeat: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = self.default_code if code is None else code
        self.reason = reason
        self.field = field
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.details: Mapping[str, str] = dict(details or {})
        self.was_admitted = was_admitted
        self.is_from_daemon = is_from_daemon
        self.must_not_repeat = must_not_repeat


class Aborted(LeptonError):
    """The daemon gave the call up, for example because its stream was not read."""

    default_code = grpc.StatusCode.ABORTED


class Cancelled(LeptonError):
    """The call was cancelled, by its caller or by a daemon that stops."""

    default_code = grpc.StatusCode.CANCELLED


class DeadlineExceeded(LeptonError):
    """The timeout passed, or would have passed before the first token."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class FailedPrecondition(LeptonError):
    """An operator must act: the model failed to load, or its engine is not installed."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class InternalError(LeptonError):
    """A fault of the daemon. Its log knows more, under `request_id`."""

    default_code = grpc.StatusCode.INTERNAL


class InvalidRequest(LeptonError):
    """The request is wrong in itself; `field` says where."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(LeptonError):
    """The daemon has no such model, variant or version."""

    default_code = grpc.StatusCode.NOT_FOUND


class PermissionDenied(LeptonError):
    """The caller may not do that, or not on this address."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class ResourceExhausted(LeptonError):
    """Too many requests wait already, or there is no memory; `retry_after_s` says when again."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unauthenticated(LeptonError):
    """The daemon wants to know who calls."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class Unavailable(LeptonError):
    """Nobody answers, or the daemon is loading the model or stopping."""

    default_code = grpc.StatusCode.UNAVAILABLE


class Unsupported(LeptonError):
    """This daemon or this model does not do what was asked; `field` says what."""

    default_code = grpc.StatusCode.UNIMPLEMENTED


_CLASS_OF: Mapping[grpc.StatusCode, type[LeptonError]] = {
    **{
        one.default_code: one
        for one in (
            Aborted,
            Cancelled,
            DeadlineExceeded,
            FailedPrecondition,
            InternalError,
            InvalidRequest,
            NotFound,
            PermissionDenied,
            ResourceExhausted,
            Unauthenticated,
            Unavailable,
            Unsupported,
        )
    },
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.UNKNOWN: InternalError,
    grpc.StatusCode.DATA_LOSS: InternalError,
    grpc.StatusCode.ALREADY_EXISTS: FailedPrecondition,
}

_CODE_OF: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class RpcFailure(Protocol):
    """What gRPC raises, of a sync or an asyncio channel."""

    def code(self) -> grpc.StatusCode:
        """The status."""

    def details(self) -> str | None:
        """The status's message."""

    def initial_metadata(self) -> Metadata | None:
        """Empty when there was none."""

    def trailing_metadata(self) -> Metadata | None:
        """Empty when there was none."""


def from_rpc_failure(
    failure: RpcFailure, *, was_answered: bool = False, timeout: float | None = None
) -> LeptonError:
    """Translate what gRPC raised.

    Args:
        failure: the error, whose call is over.
        was_answered: whether messages of the answer had come.
        timeout: how many seconds the call had in all, if it had a limit.
    """
    code = failure.code()
    initial = dict(failure.initial_metadata() or ())
    trailing = dict(failure.trailing_metadata() or ())
    found = _Details(_status(trailing.get(_DETAILS_KEY, b"")))
    pushback_s = _pushback_s(trailing.get(_PUSHBACK_KEY))
    request_id = _text(trailing.get(_REQUEST_ID_KEY) or initial.get(_REQUEST_ID_KEY, ""))
    message = failure.details() or code.name
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and timeout is not None and not found.reason:
        message = f"the timeout of {timeout:g} s passed"  # gRPC says it in several ways
    return _CLASS_OF.get(code, LeptonError)(
        message,
        code=code,
        reason=found.reason,
        field=found.field,
        request_id=request_id or found.metadata.get("request_id", ""),
        retry_after_s=pushback_s if found.retry_after_s is None else found.retry_after_s,
        details=found.metadata,
        was_admitted=was_answered or bool(initial),
        is_from_daemon=was_answered or bool(initial or trailing),
        must_not_repeat=pushback_s is None and _PUSHBACK_KEY in trailing,
    )


def from_status(status: status_pb2.Status) -> LeptonError:
    """Translate what the daemon says of one input of a call that went on."""
    code = _CODE_OF.get(status.code, grpc.StatusCode.UNKNOWN)
    found = _Details(status)
    return _CLASS_OF.get(code, LeptonError)(
        status.message or code.name,
        code=code,
        reason=found.reason,
        field=found.field,
        request_id=found.metadata.get("request_id", ""),
        retry_after_s=found.retry_after_s,
        details=found.metadata,
        was_admitted=True,
        is_from_daemon=True,
    )


class _Details:
    """What is in the `google.rpc` details of an error. Details that are none are ignored."""

    def __init__(self, status: status_pb2.Status) -> None:
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.field = ""
        self.retry_after_s: float | None = None
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        for detail in status.details:
            if detail.Unpack(info):
                self.reason, self.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad_request) and bad_request.field_violations:
                self.field = bad_request.field_violations[0].field
            elif detail.Unpack(retry):
                self.retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9


def _status(packed: str | bytes) -> status_pb2.Status:
    try:
        return status_pb2.Status.FromString(_bytes(packed))
    except DecodeError:  # some proxy's; the plain status still says what matters
        return status_pb2.Status()


def _pushback_s(value: str | bytes | None) -> float | None:
    """Seconds; None for no pushback, or for one that forbids a repetition (gRPC's rule)."""
    try:
        milliseconds = int(_text(value or ""))
    except ValueError:
        return None
    return milliseconds / 1000 if milliseconds >= 0 else None


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
