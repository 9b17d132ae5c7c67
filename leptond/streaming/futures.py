"""Awaits what a thread will produce."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TypeVar

__all__ = ["wait_future"]

T = TypeVar("T")


async def wait_future(future: concurrent.futures.Future[T]) -> T:
    """Wait for a thread's future on the running loop.

    Cancelling the awaiting task leaves `future` alone, since others may wait for it too (a load
    that several requests share). It may finish when the loop is long closed.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not done.done():
            done.set_result(None)

    def relay(_: concurrent.futures.Future[T]) -> None:
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            if not loop.is_closed():
                raise

    future.add_done_callback(relay)
    await done
    return future.result()
