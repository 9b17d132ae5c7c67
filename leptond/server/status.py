"""Errors on the wire: one table from our taxonomy to gRPC, and the `google.rpc` details.

Used by `leptond.server.calls`, the only place that ends a call with an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from leptond import errors
from leptond.errors import LeptondError

__all__ = ["STATUS_OF", "WireError", "to_wire_error"]

_DOMAIN = "leptond"
_DEFAULT_RETRY_S = 1.0

STATUS_OF: Mapping[type[LeptondError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RequestTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.BackendUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelFailed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnsupportedCapability: grpc.StatusCode.UNIMPLEMENTED,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.MemoryBudgetExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ModelLoading: grpc.StatusCode.UNAVAILABLE,
    errors.ShuttingDown: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExpired: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.RequestCancelled: grpc.StatusCode.CANCELLED,
    errors.SlowReader: grpc.StatusCode.ABORTED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.BackendFault: grpc.StatusCode.INTERNAL,
    errors.BackendCrashed: grpc.StatusCode.UNAVAILABLE,
    errors.InvariantViolation: grpc.StatusCode.INTERNAL,
    errors.LeptondError: grpc.StatusCode.INTERNAL,
}
"""Every class of the taxonomy; a test walks the tree so that none is missing."""

_RETRYABLE_CODES = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class WireError:
    """How one error leaves.

    Attributes:
        reason: the stable reason, as in `ErrorInfo`.
        message: the public text.
        metadata: trailing metadata: the details, and when to come again.
    """

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: tuple[tuple[str, str | bytes], ...]


def to_wire_error(
    error: BaseException,
    request_id: str,
    *,
    is_committed: bool,
    codes: Mapping[type[LeptondError], grpc.StatusCode] = STATUS_OF,
) -> WireError:
    """Map an error of any kind.

    Args:
        error: what ended the call; anything that is not ours is INTERNAL and its text stays here.
        request_id: the daemon's id of the call; with it an operator finds the log line.
        is_committed: whether initial metadata was sent. A crash after that must not look
            repeatable, so it is INTERNAL (the retry rule).
        codes: the status of every class; a dialect has its own.
    """
    if not isinstance(error, LeptondError):
        error = errors.InvariantViolation(f"{type(error).__name__} reached the transport")
    code = codes[type(error)]
    if is_committed and isinstance(error, errors.BackendCrashed):
        code = grpc.StatusCode.INTERNAL
    message = error.message if error.is_public else f"internal error, request {request_id}"
    retry_s = _retry_delay_s(error) if code in _RETRYABLE_CODES else None
    status = Status(
        code=code.value[0],
        message=message,
        details=[_pack(detail) for detail in _details(error, message, request_id, retry_s)],
    )
    metadata: list[tuple[str, str | bytes]] = [
        ("grpc-status-details-bin", status.SerializeToString())
    ]
    if retry_s is not None:
        metadata.append(("grpc-retry-pushback-ms", str(math.ceil(retry_s * 1000))))
    return WireError(code, error.code, message, tuple(metadata))


def _retry_delay_s(error: LeptondError) -> float:
    return _DEFAULT_RETRY_S if error.retry_after_s is None else error.retry_after_s


def _details(
    error: LeptondError, message: str, request_id: str, retry_s: float | None
) -> list[Message]:
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.code,
            domain=_DOMAIN,
            metadata={**error.details, "request_id": request_id},
        )
    ]
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=message
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.QuotaExceeded):
        quota = error_details_pb2.QuotaFailure.Violation(subject=_DOMAIN, description=message)
        details.append(error_details_pb2.QuotaFailure(violations=[quota]))
    if retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(retry_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _pack(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
