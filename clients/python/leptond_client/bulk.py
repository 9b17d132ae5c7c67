"""Any number of texts, batch by batch: what is sent, what is awaited, what came back.

Neither sync nor asyncio: the sending and the waiting are done by `stream` and `aio_stream`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from leptond.v1 import embedding_pb2
from leptond_client import batch_requests, options, responses, values
from leptond_client.calls import check_names
from leptond_client.errors import InternalError, InvalidRequest, from_status
from leptond_client.requests import Prompt
from leptond_client.responses.wire import cut_short

__all__ = ["EMBED_STREAM", "Bulk"]

EMBED_STREAM = "/leptond.v1.EmbeddingService/EmbedStream"

_BATCH_SIZE = 64
_MAX_BATCHES_IN_FLIGHT = 8
# Long texts make smaller batches, well below the longest message that a daemon takes. Of
# characters; token ids are as many bytes at most.
_MAX_BATCH_CHARACTERS = 1 << 18


class Bulk:
    """The state of one stream of embeddings, and the fold of its answers.

    Args:
        model: the model's name.
        texts: texts, or lists of token ids; read only as far as batches are sent.
        given: the caller's keyword arguments.

    Raises:
        InvalidRequest: a keyword argument is out of range.
    """

    def __init__(
        self, model: str, texts: Iterable[Prompt], given: options.EmbedStreamOptions
    ) -> None:
        check_names(given, options.EmbedStreamOptions)
        self._setup = embedding_pb2.EmbedStreamSetup()
        batch_requests.fill_embedding(self._setup, model, given)
        self._batch_size = _at_least_one("batch_size", given.get("batch_size"), _BATCH_SIZE)
        self._max_in_flight = _at_least_one(
            "max_batches_in_flight", given.get("max_batches_in_flight"), _MAX_BATCHES_IN_FLIGHT
        )
        self._batches = self._batched(iter([texts] if isinstance(texts, str) else texts))
        self._is_exhausted = False
        self._in_flight: deque[embedding_pb2.EmbedStreamRequest] = deque()
        self._num_sent = 0
        self._num_answered = 0
        self._num_errors = 0
        self._info: values.CallInfo | None = None

    @property
    def is_exhausted(self) -> bool:
        """Whether every text was sent."""
        return self._is_exhausted

    def next_request(self) -> embedding_pb2.EmbedStreamRequest | None:
        """The next batch to send; None while enough are out, and once there are none.

        Raises:
            InvalidRequest: a text is none that a message can hold.
        """
        if self._is_exhausted or len(self._in_flight) >= self._max_in_flight:
            return None
        request = next(self._batches, None)
        if request is None:
            self._is_exhausted = True
            return None
        self._in_flight.append(request)
        return request

    def unanswered(self) -> tuple[embedding_pb2.EmbedStreamRequest, ...]:
        """What was sent and is to be sent again when the call is repeated."""
        return tuple(self._in_flight)

    def add(self, message: embedding_pb2.EmbedStreamResponse) -> values.EmbeddedBatch | None:
        """The results in one message; the final one holds none."""
        if message.HasField("info"):
            self._info = responses.call_info(message.info)
            return None
        if not self._in_flight or self._in_flight[0].batch_id != message.batch_id:
            msg = f"the answer is of batch {message.batch_id}, which is not the next one"
            raise InternalError(msg, was_admitted=True)
        request = self._in_flight.popleft()
        first = self._num_answered
        self._num_answered += len(request.texts) + len(request.token_ids)
        self._num_errors += len(message.errors)
        return values.EmbeddedBatch(
            first_index=first,
            embeddings=responses.embedding_batch(message.embeddings),
            errors={first + error.index: from_status(error.status) for error in message.errors},
        )

    def final(self) -> values.EmbeddingSummary:
        """What the whole stream was."""
        if self._info is None or self._in_flight or not self._is_exhausted:
            raise cut_short()
        return values.EmbeddingSummary(self._num_answered, self._num_errors, self._info)

    def _batched(self, texts: Iterator[Prompt]) -> Iterator[embedding_pb2.EmbedStreamRequest]:
        batch: list[Prompt] = []
        num_characters = 0
        for text in texts:
            is_other_kind = batch and isinstance(text, str) is not isinstance(batch[0], str)
            is_full = len(batch) == self._batch_size or (
                num_characters + len(text) > _MAX_BATCH_CHARACTERS
            )
            if batch and (is_full or is_other_kind):
                yield self._request(batch)
                batch, num_characters = [], 0
            batch.append(text)
            num_characters += len(text)
        if batch or not self._num_sent:  # a stream without texts says its model all the same
            yield self._request(batch)

    def _request(self, batch: list[Prompt]) -> embedding_pb2.EmbedStreamRequest:
        request = embedding_pb2.EmbedStreamRequest(batch_id=self._num_sent)
        if self._num_sent == 0:
            request.setup.CopyFrom(self._setup)
        batch_requests.add_texts(request, batch)
        self._num_sent += 1
        return request


def _at_least_one(name: str, given: int | None, default: int) -> int:
    if given is None:
        return default
    if given < 1:
        raise InvalidRequest(f"{name} is at least 1, not {given}", field=name)
    return given
