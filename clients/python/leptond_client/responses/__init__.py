"""From the messages of the API to the client's values. Pure; used by `leptond_client.calls`.

A `Fold` takes the messages of a stream one by one, gives what each means and, at the end, what they
mean together.
"""

from __future__ import annotations

from leptond_client.responses.batch import (
    TranslationFold,
    call_info,
    classifications,
    embedding_batch,
    embeddings,
    ranking,
    scores,
    translations,
)
from leptond_client.responses.daemon import (
    LoadFold,
    StatusFold,
    daemon_load,
    health_report,
    models,
    serving_status,
    unloaded,
)
from leptond_client.responses.text import (
    GenerationFold,
    chat,
    detokenization,
    generation,
    tokenization,
)
from leptond_client.responses.wire import Fold

__all__ = [
    "Fold",
    "GenerationFold",
    "LoadFold",
    "StatusFold",
    "TranslationFold",
    "call_info",
    "chat",
    "classifications",
    "daemon_load",
    "detokenization",
    "embedding_batch",
    "embeddings",
    "generation",
    "health_report",
    "models",
    "ranking",
    "scores",
    "serving_status",
    "tokenization",
    "translations",
    "unloaded",
]
