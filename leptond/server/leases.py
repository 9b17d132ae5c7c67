"""Getting hold of a model for the time of one call. On the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from leptond.errors import DeadlineExpired, ModelNotFound
from leptond.models import ModelLease, ModelRegistry, ServedModel
from leptond.server.calls import Call
from leptond.streaming import wait_future

__all__ = ["leased"]


@asynccontextmanager
async def leased(
    models: ModelRegistry, name: str, version: int, call: Call
) -> AsyncIterator[ServedModel]:
    """The model of a call, loaded first where that is allowed; given back when the block ends.

    Raises:
        ModelNotFound: no such model, or it has another version than the one asked for.
        DeadlineExpired: the call's deadline passed while the model was being loaded.
        ModelFailed, ModelLoading, ShuttingDown: as `ModelRegistry.acquire` says.
    """
    lease = models.try_acquire(name) or await _wait(models, name, call)
    try:
        model = lease.model
        if version not in (0, model.variant.version):
            msg = f"model {model.name} has version {model.variant.version}, not {version}"
            raise ModelNotFound(msg, field="model_version")
        yield model
    finally:
        lease.release()


async def _wait(models: ModelRegistry, name: str, call: Call) -> ModelLease:
    future = models.acquire(name)
    try:
        async with asyncio.timeout(call.remaining_s):
            return await wait_future(future)
    except (TimeoutError, asyncio.CancelledError) as error:
        # Nobody takes the lease any more: either it never comes, or it goes back at once.
        if not future.cancel() and future.exception() is None:
            future.result().release()
        if isinstance(error, TimeoutError):
            msg = f"the deadline passed while model {name} was being loaded"
            raise DeadlineExpired(msg) from error
        raise
