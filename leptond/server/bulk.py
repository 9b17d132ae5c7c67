"""One `EmbedStream` call: batches in, results out in their order, in bounded memory.

I1  At most `_MAX_IN_FLIGHT` batches wait for their results, besides the one that is read and the
    one that is answered, and nothing more is read while they have more than `_MAX_HELD_TOKENS`
    tokens: gRPC's flow control holds the caller back.
I2  Results leave in the order of the batches; an error of the stream comes after them.
I3  What is wrong with one text is told with its batch and is no matter of the others.
I4  Whatever ends the call, every row that is still with the engine is cancelled.

On the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from google.rpc.status_pb2 import Status

from leptond.errors import InvalidRequest, LeptondError, QueueFull
from leptond.models import ServedModel
from leptond.scheduler import BatchItem, BatchRequest
from leptond.server.batching import BatchCalls, Stream, Tensors, collect
from leptond.server.calls import Call
from leptond.server.convert import embeddings, requests, responses
from leptond.server.convert.supported import refuse_unsupported
from leptond.server.embedding_inputs import note_counts, prepare_each
from leptond.server.encoding import encoder_defaults
from leptond.server.leases import leased
from leptond.server.status import to_wire_error
from leptond.telemetry import EMBEDDINGS, InferenceRecord
from leptond.types import Phase, PhaseName, Task, Usage
from leptond.v1 import embedding_pb2

__all__ = ["BulkEmbedding"]

_MAX_IN_FLIGHT = 8
_MAX_HELD_TOKENS = 1 << 19  # as Python numbers some twenty megabytes
_MAX_FAULTS = 16  # of a batch: after each the rest runs again
_RETRY_S = 0.5


@dataclass(slots=True, eq=False)
class _Batch:
    """One batch between its message and its results.

    Attributes:
        positions: of each item, its text's place in the message.
        errors: by the text's place.
    """

    id: int
    num_texts: int
    items: list[BatchItem] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    num_tokens: list[int] = field(default_factory=list)
    num_truncated: list[int] = field(default_factory=list)
    errors: dict[int, LeptondError] = field(default_factory=dict)
    stream: Stream | None = None


class BulkEmbedding:
    """The state of one call; used once.

    Attributes:
        with_writer_since: see `ResponseStream`: for those who look for slow readers.
    """

    def __init__(self, batches: BatchCalls, call: Call) -> None:
        self._batches = batches
        self._call = call
        self._in_flight: set[_Batch] = set()
        self._num_tokens = 0
        self._held_tokens = 0
        self._has_room = asyncio.Event()
        self.with_writer_since: float | None = None

    async def run(self, messages: AsyncIterator[embedding_pb2.EmbedStreamRequest]) -> None:
        """Answer the call.

        Raises:
            InvalidRequest: the first message has no setup, a later one has, or a batch is none.
            LeptondError: what refuses the stream as a whole.
        """
        first = await anext(messages, None)
        if first is None or not first.HasField("setup"):
            raise InvalidRequest("the first message has no setup", field="setup")
        setup, call = first.setup, self._call
        label = await requests.begin(setup, call, self._batches.pool)
        async with leased(self._batches.models, setup.model, setup.model_version, call) as model:
            model.require(Task.EMBED)
            requests.check_determinism(setup.options, model.name, model.capabilities)
            options = embeddings.vector_options(setup.embedding, encoder_defaults(model))
            model.scheduler.require_room()
            await call.commit()
            times = responses.CallTimes(call.started, time.monotonic())
            call.stream = self
            try:
                async with call.in_time():  # a caller that sends nothing runs out of time too
                    await self._pump(first, messages, model, setup, options)
                await self._write(self._farewell(label, model, times))
            except BaseException as error:
                self._record(model, times, error)
                raise
            else:
                self._record(model, times, None)

    async def _pump(
        self,
        first: embedding_pb2.EmbedStreamRequest,
        messages: AsyncIterator[embedding_pb2.EmbedStreamRequest],
        model: ServedModel,
        setup: embedding_pb2.EmbedStreamSetup,
        options: embeddings.VectorOptions,
    ) -> None:
        """Read and submit in one task, answer in this one."""
        waiting: asyncio.Queue[_Batch | Exception | None] = asyncio.Queue(_MAX_IN_FLIGHT)

        async def read() -> None:
            try:
                if first.texts or first.token_ids:
                    await waiting.put(await self._submit(first, model, setup))
                await self._wait_for_room()
                async for message in messages:
                    _check_later(message)
                    await waiting.put(await self._submit(message, model, setup))
                    await self._wait_for_room()
            except Exception as error:  # told to the caller by the task that answers
                await waiting.put(error)
            else:
                await waiting.put(None)

        reader = asyncio.create_task(read())
        try:
            while (batch := await waiting.get()) is not None:
                if isinstance(batch, Exception):
                    raise batch
                await self._answer(batch, model, setup, options)
        finally:
            reader.cancel()  # it submits nothing more
            for left in self._in_flight:
                if left.stream is not None:
                    left.stream.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    # ------------------------------------------------------------------ in
    async def _submit(
        self,
        message: embedding_pb2.EmbedStreamRequest,
        model: ServedModel,
        setup: embedding_pb2.EmbedStreamSetup,
    ) -> _Batch:
        await self._batches.pool.run(refuse_unsupported, message)
        prepared = await prepare_each(model, message, setup.embedding, self._batches.pool)
        batch = _Batch(message.batch_id, len(prepared))
        for position, one in enumerate(prepared):
            if isinstance(one, LeptondError):
                batch.errors[position] = one
                batch.num_tokens.append(0)
                batch.num_truncated.append(0)
                continue
            batch.items += one.items
            batch.positions.append(position)
            batch.num_tokens += one.num_tokens
            batch.num_truncated += one.num_truncated
        num_tokens = sum(batch.num_tokens)
        self._num_tokens += num_tokens
        self._held_tokens += num_tokens
        self._in_flight.add(batch)
        await self._run(batch, batch.items, model, setup)
        return batch

    async def _wait_for_room(self) -> None:
        while self._held_tokens > _MAX_HELD_TOKENS:
            self._has_room.clear()
            await self._has_room.wait()

    async def _run(
        self,
        batch: _Batch,
        items: list[BatchItem],
        model: ServedModel,
        setup: embedding_pb2.EmbedStreamSetup,
    ) -> None:
        if not items:
            batch.stream = None
            return
        call = self._call
        priority = setup.options.priority
        request = BatchRequest(call.id, tuple(items), deadline=call.deadline, priority=priority)
        while True:
            stream = self._batches.open_stream(is_streamed=False)
            try:
                model.run(request, stream)
            except QueueFull as error:
                # The stream was admitted: it waits like the others, and is not refused half-way.
                await asyncio.sleep(min(error.retry_after_s or _RETRY_S, _RETRY_S))
            else:
                batch.stream = stream
                return

    # ------------------------------------------------------------------ out
    async def _answer(
        self,
        batch: _Batch,
        model: ServedModel,
        setup: embedding_pb2.EmbedStreamSetup,
        options: embeddings.VectorOptions,
    ) -> None:
        dimensions = encoder_defaults(model).dimensions
        vectors = np.zeros((batch.num_texts, dimensions), np.float32)
        items, positions = batch.items, batch.positions
        num_faults = 0
        while batch.stream is not None:
            found: list[Tensors] = [{}] * len(items)
            faulty: int | None = None
            try:
                await collect(batch.stream, found)
            except LeptondError as error:
                num_faults += 1
                if "index" not in error.details or num_faults > _MAX_FAULTS:
                    raise
                if (error.field or "").startswith("options."):  # of every row alike
                    field = "embedding.pooling"
                    raise InvalidRequest(f"{field}: {error.message}", field=field) from error
                faulty = int(error.details["index"])
                place = positions[faulty]
                details = {**error.details, "index": str(place)}
                batch.errors[place] = type(error)(error.message, field=error.field, details=details)
            left = []
            for index, tensors in enumerate(found):
                if "embedding" in tensors:
                    vectors[positions[index]] = tensors["embedding"]
                elif index != faulty:
                    left.append(index)
            # One item ended its request: the others that were not answered run again without it.
            items, positions = [items[one] for one in left], [positions[one] for one in left]
            await self._run(batch, items, model, setup)
        self._in_flight.discard(batch)
        self._held_tokens -= sum(batch.num_tokens)
        self._has_room.set()
        packed = await self._batches.pool.run(embeddings.pack, vectors, options)
        note_counts(packed, batch.num_tokens, batch.num_truncated)
        answer = embedding_pb2.EmbedStreamResponse(batch_id=batch.id, embeddings=packed)
        for position in sorted(batch.errors):
            status = _status(batch.errors[position], self._call.id)
            answer.errors.add(index=position, status=status)
        await self._write(answer)

    async def _write(self, message: embedding_pb2.EmbedStreamResponse) -> None:
        self.with_writer_since = time.monotonic()
        await self._call.write(message)
        self.with_writer_since = None

    # ------------------------------------------------------------------ the end
    def _farewell(
        self, label: str, model: ServedModel, times: responses.CallTimes
    ) -> embedding_pb2.EmbedStreamResponse:
        now = time.monotonic()
        return embedding_pb2.EmbedStreamResponse(
            info=responses.response_info(
                label=label,
                call_id=self._call.id,
                model=model.name,
                version=model.variant.version,
                prompt_tokens=self._num_tokens,
                timing=responses.timing(times, _phases(times, now), now),
            )
        )

    def _record(
        self, model: ServedModel, times: responses.CallTimes, error: BaseException | None
    ) -> None:
        self._call.record.record_inference(
            InferenceRecord(
                operation=EMBEDDINGS,
                model=model.name,
                phases=_phases(times, time.monotonic()),
                usage=Usage(self._num_tokens, 0),
                is_stream=True,
                error=error.code if isinstance(error, LeptondError) else None,
            )
        )


def _check_later(message: embedding_pb2.EmbedStreamRequest) -> None:
    if message.HasField("setup"):
        raise InvalidRequest("setup belongs into the first message only", field="setup")


def _phases(times: responses.CallTimes, now: float) -> tuple[Phase, ...]:
    """Of a stream all is one: its batches are made ready, run and delivered side by side."""
    return (Phase(PhaseName.PREFILL, times.leased, now),)


def _status(error: LeptondError, call_id: str) -> Status:
    """What a call with this text alone would have ended with."""
    wire = to_wire_error(error, call_id, is_committed=False)
    details = dict(wire.metadata)["grpc-status-details-bin"]
    parse: Callable[[bytes], Status] = Status.FromString
    return parse(cast(bytes, details))
