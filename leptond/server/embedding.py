"""`leptond.v1.EmbeddingService`: vectors of many texts in one message, or in bulk.

On the event loop; tokenising and packing run on threads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from leptond.models import ServedModel
from leptond.scheduler import BatchItem
from leptond.server.batching import BatchCalls, gather_tensors, stacked
from leptond.server.bulk import BulkEmbedding
from leptond.server.calls import Call
from leptond.server.convert import embeddings, requests
from leptond.server.embedding_inputs import note_counts, prepare_texts
from leptond.server.encoding import EncodedTexts, encoder_defaults
from leptond.telemetry import EMBEDDINGS
from leptond.types import Task
from leptond.v1 import embedding_pb2

__all__ = ["EmbeddingMethods"]


class EmbeddingMethods:
    """Embed and EmbedStream, by their names in snake case."""

    def __init__(self, batches: BatchCalls) -> None:
        self._batches = batches

    async def embed(
        self, request: embedding_pb2.EmbedRequest, call: Call
    ) -> embedding_pb2.EmbedResponse:
        """The vectors of all texts; one that is wrong fails the call, by its index."""
        encoded = EncodedTexts((), (), ())

        async def prepare(model: ServedModel) -> Sequence[BatchItem]:
            nonlocal encoded
            model.require(Task.EMBED)
            requests.check_determinism(request.options, model.name, model.capabilities)
            embeddings.vector_options(request.embedding, encoder_defaults(model))
            encoded = await prepare_texts(model, request, request.embedding, self._batches.pool)
            return encoded.items

        async with self._batches.admitted(request, call, EMBEDDINGS, prepare) as inference:
            vectors = stacked(await gather_tensors(inference, len(encoded.items)), "embedding")
            options = embeddings.vector_options(
                request.embedding, encoder_defaults(inference.model)
            )
            batch = await self._batches.pool.run(embeddings.pack, vectors, options)
            note_counts(batch, encoded.num_tokens, encoded.num_truncated)
            return embedding_pb2.EmbedResponse(embeddings=batch, info=inference.info(call))

    async def embed_stream(
        self, requests: AsyncIterator[embedding_pb2.EmbedStreamRequest], call: Call
    ) -> None:
        """Batches go in, results come out in their order, a bounded number of them in flight."""
        await BulkEmbedding(self._batches, call).run(requests)
