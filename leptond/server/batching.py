"""The typed services' way to a model that answers in whole calls.

On the event loop. The way of a request: refuse what is not honoured → lease the model → make its
inputs ready → submit → commit → take the answers as they come → say how it ended.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.models import ModelRegistry, ServedModel
from leptond.scheduler import BatchAnswer, BatchItem, BatchRequest, BatchSummary
from leptond.server.calls import Call
from leptond.server.convert import requests, responses
from leptond.server.inference import BatchInference
from leptond.server.leases import leased
from leptond.streaming import BlockingPool, LoopBridge, ResponseStream
from leptond.types import StreamPacing

__all__ = ["BatchCalls", "Stream", "Tensors", "collect", "gather_tensors", "stacked"]

Tensors = Mapping[str, npt.NDArray[Any]]
Stream = ResponseStream[BatchAnswer, BatchSummary]
Prepare = Callable[[ServedModel], Awaitable[Sequence[BatchItem]]]

# As many answers may wait for a reader that is behind; then its rows wait too.
_MAX_BUFFERED = 256
_GATHERED = 256


class BatchCalls:
    """Runs the inputs of calls through their models.

    Args:
        models: where models come from.
        bridge: makes the streams between workers and this loop.
        pool: threads for tokenisation and other work that blocks.
    """

    def __init__(self, models: ModelRegistry, bridge: LoopBridge, pool: BlockingPool) -> None:
        self.models = models
        self.pool = pool
        self._bridge = bridge

    @asynccontextmanager
    async def admitted(
        self,
        wire: Any,
        call: Call,
        operation: str,
        prepare: Prepare,
        *,
        is_streamed: bool = False,
    ) -> AsyncIterator[BatchInference]:
        """Admit one request; while the block runs its rows are the scheduler's, after it nobody's.

        Args:
            wire: the request, with `model`, `model_version` and `options`.
            call: the call that it came with.
            operation: for the span, such as `embeddings`.
            prepare: checks the request against the model and makes its items: at least one.
            is_streamed: whether answers are sent on before the last one is there.

        Raises:
            LeptondError: what refuses the request; see `leptond.server.status`.
        """
        label = await requests.begin(wire, call, self.pool)
        async with leased(self.models, wire.model, wire.model_version, call) as model:
            leased_at = time.monotonic()
            model.scheduler.require_room()
            items = tuple(await prepare(model))
            priority = wire.options.priority
            async with self.running(
                model,
                items,
                call,
                operation,
                label=label,
                leased_at=leased_at,
                priority=priority,
                is_streamed=is_streamed,
            ) as inference:
                await call.commit()
                yield inference

    def open_stream(self, *, is_streamed: bool) -> Stream:
        """Make the stream of one request's answers: handed on one by one, or gathered."""
        if is_streamed:
            return self._bridge.open_stream(StreamPacing(), max_buffered=_MAX_BUFFERED)
        # Whoever gathers everything need not be woken for each: only not for too many at once.
        pacing = StreamPacing(interval_tokens=_GATHERED)
        return self._bridge.open_stream(pacing, max_buffered=1 << 30)

    @asynccontextmanager
    async def running(
        self,
        model: ServedModel,
        items: tuple[BatchItem, ...],
        call: Call,
        operation: str,
        *,
        label: str,
        leased_at: float,
        priority: int = 0,
        is_streamed: bool = False,
    ) -> AsyncIterator[BatchInference]:
        """Submit items to a model that is leased already; on the way out they are cancelled.

        Raises:
            LeptondError: as `BatchScheduler.submit`.
        """
        stream = self.open_stream(is_streamed=is_streamed)
        request = BatchRequest(call.id, items, deadline=call.deadline, priority=priority)
        inference = BatchInference(
            operation=operation,
            label=label,
            model=model,
            stream=stream,
            times=responses.CallTimes(call.started, leased_at),
            progress=model.run(request, stream),
            is_streamed=is_streamed,
        )
        call.stream = stream
        try:
            yield inference
        except BaseException as error:
            inference.record(call, error)
            raise
        else:
            inference.record(call, None)
        finally:
            stream.cancel()


async def gather_tensors(inference: BatchInference, num_items: int) -> list[Tensors]:
    """Wait for every answer; the final tensors of each item, in the order of the items.

    Raises:
        LeptondError: what ended the request; `details["index"]` names the item at fault.
    """
    found: list[Tensors] = [{}] * num_items
    inference.summary = await collect(inference.stream, found)
    return found


async def collect(stream: Stream, found: list[Tensors]) -> BatchSummary:
    """Put the final tensors of each item into its place in `found`, until all have ended.

    Raises:
        LeptondError: as `gather_tensors`; what came before is in `found`.
    """
    while answers := await stream.next():
        for answer in answers:
            if answer.chunk.is_final:
                found[answer.index] = answer.chunk.tensors
    return stream.final


def stacked(tensors: Sequence[Tensors], name: str) -> npt.NDArray[np.float32]:
    """One tensor of every item, stacked: float32 `[num_items, ...]`."""
    return np.stack([one[name] for one in tensors])
