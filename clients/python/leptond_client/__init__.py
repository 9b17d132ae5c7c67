"""Talk to a leptond daemon: `Client` for blocking code, `AsyncClient` for asyncio.

    from leptond_client import Client

    with Client() as client:  # $LEPTON_ADDRESS, else 127.0.0.1:8600
        stream = client.generate_stream("smollm2-135m-instruct", "Once upon a time", max_tokens=64)
        for delta in stream:
            print(delta.text, end="", flush=True)
        print(stream.result.usage)

Needs nothing of the daemon's. The `lepton` command is in `leptond_client.cli`.
"""

from __future__ import annotations

from leptond_client.aio import AsyncClient, AsyncStream
from leptond_client.client import Client, Stream
from leptond_client.errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidRequest,
    LeptonError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from leptond_client.requests import MessageLike, Prompt
from leptond_client.retry import RetryPolicy
from leptond_client.values import (
    DaemonLoad,
    Delta,
    FinishReason,
    Generation,
    LoadProgress,
    Message,
    Model,
    ModelLoad,
    ModelState,
    ModelVariant,
    Role,
    ServingStatus,
    Timing,
    Tokenization,
    TokenLogprob,
    UnloadedModels,
    Usage,
)

__all__ = [
    "Aborted",
    "AsyncClient",
    "AsyncStream",
    "Cancelled",
    "Client",
    "DaemonLoad",
    "DeadlineExceeded",
    "Delta",
    "FailedPrecondition",
    "FinishReason",
    "Generation",
    "InternalError",
    "InvalidRequest",
    "LeptonError",
    "LoadProgress",
    "Message",
    "MessageLike",
    "Model",
    "ModelLoad",
    "ModelState",
    "ModelVariant",
    "NotFound",
    "PermissionDenied",
    "Prompt",
    "ResourceExhausted",
    "RetryPolicy",
    "Role",
    "ServingStatus",
    "Stream",
    "Timing",
    "TokenLogprob",
    "Tokenization",
    "Unauthenticated",
    "Unavailable",
    "UnloadedModels",
    "Unsupported",
    "Usage",
]
