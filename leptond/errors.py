"""Error taxonomy: what can go wrong, told once, for every layer and every protocol.

    LeptondError
    ├── InvalidRequest              the caller must change the request
    │   └── RequestTooLarge         ... because it can never fit this model or this daemon
    ├── ModelNotFound               no such model, variant or version
    ├── BackendUnavailable          the engine is not installed or its device is absent
    ├── ModelFailed                 the model could not be loaded
    ├── UnsupportedCapability       this server or this model does not do that
    ├── QueueFull                   too many requests are waiting
    ├── MemoryBudgetExceeded        no memory for it now
    ├── QuotaExceeded               this tenant used up its share
    ├── ModelLoading                the model is not ready yet
    ├── ShuttingDown                the daemon drains
    ├── DeadlineExpired             the caller's deadline passed, or would pass
    ├── RequestCancelled            the caller went away
    ├── SlowReader                  the caller does not read its stream
    ├── Unauthenticated, Forbidden  who are you; not you
    ├── BackendFault                the engine failed a call; its session lives
    ├── BackendCrashed              the engine's session is dead
    └── InvariantViolation          a bug of ours

Raised by any layer on any thread. No transport code appears here: `leptond.server.status` maps
each class to a gRPC status in one table, and a test walks this tree so that no class lacks a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar

__all__ = [
    "BackendCrashed",
    "BackendFault",
    "BackendUnavailable",
    "DeadlineExpired",
    "ErrorCode",
    "Forbidden",
    "InvalidRequest",
    "InvariantViolation",
    "LeptondError",
    "MemoryBudgetExceeded",
    "ModelFailed",
    "ModelLoading",
    "ModelNotFound",
    "QueueFull",
    "QuotaExceeded",
    "RequestCancelled",
    "RequestTooLarge",
    "ShuttingDown",
    "SlowReader",
    "Unauthenticated",
    "UnsupportedCapability",
]


class ErrorCode(StrEnum):
    """Stable machine-readable reasons; they travel as `google.rpc.ErrorInfo.reason`."""

    INVALID_REQUEST = "INVALID_REQUEST"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    BACKEND_UNAVAILABLE = "BACKEND_UNAVAILABLE"
    MODEL_FAILED = "MODEL_FAILED"
    UNSUPPORTED_CAPABILITY = "UNSUPPORTED_CAPABILITY"
    QUEUE_FULL = "QUEUE_FULL"
    MEMORY_BUDGET_EXCEEDED = "MEMORY_BUDGET_EXCEEDED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    MODEL_LOADING = "MODEL_LOADING"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    DEADLINE_EXPIRED = "DEADLINE_EXPIRED"
    REQUEST_CANCELLED = "REQUEST_CANCELLED"
    SLOW_READER = "SLOW_READER"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    BACKEND_FAULT = "BACKEND_FAULT"
    BACKEND_CRASHED = "BACKEND_CRASHED"
    INTERNAL = "INTERNAL"


class LeptondError(Exception):
    """Base of every error that leptond raises on purpose.

    Args:
        message: one plain sentence for the caller; it names the field and the limit.
        field: path of the offending request field (`input.sampling.temperature`), if one is.
        retry_after_s: when a retry has a chance, in seconds; None when the class says it all.
        details: further facts, as strings; they travel as `ErrorInfo.metadata`.

    `is_public` says whether the message may leave the process; `retryable` whether the same
    request may succeed later unchanged.
    """

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL
    retryable: ClassVar[bool] = False
    is_public: ClassVar[bool] = True

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s
        self.details: Mapping[str, str] = dict(details or {})


class InvalidRequest(LeptondError):
    """The request is wrong in itself: shape, dtype, range, text that is not UTF-8."""

    code = ErrorCode.INVALID_REQUEST


class RequestTooLarge(InvalidRequest):
    """The request can never fit: longer than the model's context, larger than a limit."""

    code = ErrorCode.REQUEST_TOO_LARGE


class ModelNotFound(LeptondError):
    """No store holds a model, variant or version of that name."""

    code = ErrorCode.MODEL_NOT_FOUND


class BackendUnavailable(LeptondError):
    """The engine that the model needs is not installed, or its device is absent."""

    code = ErrorCode.BACKEND_UNAVAILABLE


class ModelFailed(LeptondError):
    """The model's last load failed; the message says why. An operator must act."""

    code = ErrorCode.MODEL_FAILED


class UnsupportedCapability(LeptondError):
    """This server, or this model, does not do what was asked; the message names the field."""

    code = ErrorCode.UNSUPPORTED_CAPABILITY


class QueueFull(LeptondError):
    """As many requests wait for this model as its queue may hold."""

    code = ErrorCode.QUEUE_FULL
    retryable = True


class MemoryBudgetExceeded(LeptondError):
    """The memory that this needs is in use by others."""

    code = ErrorCode.MEMORY_BUDGET_EXCEEDED
    retryable = True


class QuotaExceeded(LeptondError):
    """The tenant has used up its share for now."""

    code = ErrorCode.QUOTA_EXCEEDED
    retryable = True


class ModelLoading(LeptondError):
    """The model is being loaded and the call cannot wait for it."""

    code = ErrorCode.MODEL_LOADING
    retryable = True


class ShuttingDown(LeptondError):
    """The daemon drains: it finishes what runs and takes nothing new."""

    code = ErrorCode.SHUTTING_DOWN
    retryable = True


class DeadlineExpired(LeptondError):
    """The caller's deadline passed, or would pass before the first token. Never logged as error."""

    code = ErrorCode.DEADLINE_EXPIRED


class RequestCancelled(LeptondError):
    """The caller went away. Never logged as error."""

    code = ErrorCode.REQUEST_CANCELLED


class SlowReader(LeptondError):
    """The caller left a message unread for longer than the daemon keeps its work for it."""

    code = ErrorCode.SLOW_READER


class Unauthenticated(LeptondError):
    """The caller did not prove who it is."""

    code = ErrorCode.UNAUTHENTICATED


class Forbidden(LeptondError):
    """The caller may not do that, or not on this address."""

    code = ErrorCode.FORBIDDEN


class BackendFault(LeptondError):
    """An engine call failed; the session and its slots are still valid."""

    code = ErrorCode.BACKEND_FAULT
    is_public = False


class BackendCrashed(LeptondError):
    """The engine's session is dead. Retryable only while no chunk was sent."""

    code = ErrorCode.BACKEND_CRASHED
    retryable = True
    is_public = False


class InvariantViolation(LeptondError):
    """A state that must not exist: a bug of ours. Raised instead of `assert`."""

    code = ErrorCode.INTERNAL
    is_public = False

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}: this is a bug")
