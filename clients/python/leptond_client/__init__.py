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

from leptond_client.aio import AsyncClient, AsyncEmbedStream, AsyncStream
from leptond_client.client import Client, EmbedStream, Stream
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
    CallInfo,
    Classification,
    Classifications,
    DaemonLoad,
    Delta,
    ElementType,
    EmbeddedBatch,
    Embeddings,
    EmbeddingSummary,
    FinishReason,
    Generation,
    LabelScore,
    LoadProgress,
    Message,
    Model,
    ModelLoad,
    ModelState,
    ModelVariant,
    RankedDocument,
    Ranking,
    Role,
    Score,
    ScoreInput,
    Scores,
    ServingStatus,
    Timing,
    Tokenization,
    TokenLogprob,
    TranslatedSentence,
    Translation,
    TranslationAlternative,
    TranslationPiece,
    Translations,
    UnloadedModels,
    Usage,
)

__all__ = [
    "Aborted",
    "AsyncClient",
    "AsyncEmbedStream",
    "AsyncStream",
    "CallInfo",
    "Cancelled",
    "Classification",
    "Classifications",
    "Client",
    "DaemonLoad",
    "DeadlineExceeded",
    "Delta",
    "ElementType",
    "EmbedStream",
    "EmbeddedBatch",
    "EmbeddingSummary",
    "Embeddings",
    "FailedPrecondition",
    "FinishReason",
    "Generation",
    "InternalError",
    "InvalidRequest",
    "LabelScore",
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
    "RankedDocument",
    "Ranking",
    "ResourceExhausted",
    "RetryPolicy",
    "Role",
    "Score",
    "ScoreInput",
    "Scores",
    "ServingStatus",
    "Stream",
    "Timing",
    "TokenLogprob",
    "Tokenization",
    "TranslatedSentence",
    "Translation",
    "TranslationAlternative",
    "TranslationPiece",
    "Translations",
    "Unauthenticated",
    "Unavailable",
    "UnloadedModels",
    "Unsupported",
    "Usage",
]
