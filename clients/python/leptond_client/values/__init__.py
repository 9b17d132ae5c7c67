"""What the client returns: frozen values, no protobuf.

Strings stand for the enumerations of the API, in lower case and without their prefix: a
`FinishReason` of "stop", a `ModelState` of "ready".
"""

from __future__ import annotations

from leptond_client.values.daemon import (
    DaemonLoad,
    LoadProgress,
    Model,
    ModelLoad,
    ModelState,
    ModelVariant,
    ServingStatus,
    UnloadedModels,
)
from leptond_client.values.text import (
    Delta,
    FinishReason,
    Generation,
    Message,
    Role,
    Timing,
    Tokenization,
    TokenLogprob,
    Usage,
)

__all__ = [
    "DaemonLoad",
    "Delta",
    "FinishReason",
    "Generation",
    "LoadProgress",
    "Message",
    "Model",
    "ModelLoad",
    "ModelState",
    "ModelVariant",
    "Role",
    "ServingStatus",
    "Timing",
    "TokenLogprob",
    "Tokenization",
    "UnloadedModels",
    "Usage",
]
