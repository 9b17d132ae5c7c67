"""A few threads for calls that block and let the GIL go, such as tokenisation."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from leptond.errors import ShuttingDown

__all__ = ["BlockingPool"]

P = ParamSpec("P")
T = TypeVar("T")


class BlockingPool:
    """Runs blocking calls off the event loop, in order of arrival.

    Args:
        num_threads: calls that run at once.
        name: prefix of the threads' names.
    """

    def __init__(self, num_threads: int = 2, *, name: str = "leptond-blocking") -> None:
        self._executor = ThreadPoolExecutor(num_threads, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` on a thread of the pool, in the caller's context.

        A cancelled task leaves at once; a call that has started ends by itself.

        Raises:
            ShuttingDown: the pool was shut down.
        """
        context = contextvars.copy_context()

        def call() -> T:
            return context.run(function, *args, **kwargs)

        try:
            started: Any = asyncio.get_running_loop().run_in_executor(self._executor, call)
        except RuntimeError as error:
            raise ShuttingDown("the daemon is shutting down") from error
        result: T = await started
        return result

    def shutdown(self) -> None:
        """Wait for the calls that run, drop those that wait, end the threads. Idempotent."""
        self._executor.shutdown(wait=True, cancel_futures=True)
