"""What the client returns: frozen values, no protobuf.

Strings stand for the enumerations of the API, in lower case and without their prefix: a
`FinishReason` of "stop", a `ModelState` of "ready".
"""

from __future__ import annotations

from leptond_client.values.call import CallInfo
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
from leptond_client.values.embedding import (
    ElementType,
    EmbeddedBatch,
    Embeddings,
    EmbeddingSummary,
)
from leptond_client.values.judgement import (
    Classification,
    Classifications,
    LabelScore,
    RankedDocument,
    Ranking,
    Score,
    ScoreInput,
    Scores,
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
from leptond_client.values.translation import (
    TranslatedSentence,
    Translation,
    TranslationAlternative,
    TranslationPiece,
    Translations,
)

__all__ = [
    "CallInfo",
    "Classification",
    "Classifications",
    "DaemonLoad",
    "Delta",
    "ElementType",
    "EmbeddedBatch",
    "EmbeddingSummary",
    "Embeddings",
    "FinishReason",
    "Generation",
    "LabelScore",
    "LoadProgress",
    "Message",
    "Model",
    "ModelLoad",
    "ModelState",
    "ModelVariant",
    "RankedDocument",
    "Ranking",
    "Role",
    "Score",
    "ScoreInput",
    "Scores",
    "ServingStatus",
    "Timing",
    "TokenLogprob",
    "Tokenization",
    "TranslatedSentence",
    "Translation",
    "TranslationAlternative",
    "TranslationPiece",
    "Translations",
    "UnloadedModels",
    "Usage",
]
