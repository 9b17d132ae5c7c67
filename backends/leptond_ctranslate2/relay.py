"""Brings the tokens of a running call to the thread that asked for it, one by one.

The engine calls back on a thread of its own, and goes on when the callback returned. The callback
hands the token over and waits for the verdict, so that whatever `emit` does (lend the cores to
another model for a moment, say) holds up the engine as well:

    run's thread      ── call ──┐               handle(step) ── verdict ┐      ... ── end ──
    caller's thread             └ generate_batch (blocks, without the GIL) ───────────┘
    engine's thread                 step ────── put, wait ──────────────┘ next step

I1  The callback never raises: an exception on the engine's thread would end the process.
I2  `run` returns when the engine's call has ended, also when `handle` raised.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

__all__ = ["TokenRelay"]

Callback = Callable[[Any], bool]


class TokenRelay:
    """One session's thread for calls that stream."""

    def __init__(self) -> None:
        self._caller = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ctranslate2-call")

    def run(self, call: Callable[[Callback], Any], handle: Callback) -> Any:
        """Make a call and handle each of its steps on this thread.

        Args:
            call: makes the engine's call with the callback that it is given.
            handle: takes a step of the engine; True ends the step's row.

        Returns:
            What `call` returned.
        """
        steps: SimpleQueue[Any] = SimpleQueue()
        verdicts: SimpleQueue[bool] = SimpleQueue()

        def on_token(step: Any) -> bool:
            steps.put(step)
            return verdicts.get()

        made = self._caller.submit(call, on_token)
        made.add_done_callback(lambda _: steps.put(None))
        failure: BaseException | None = None
        while (step := steps.get()) is not None:
            is_ended = True
            if failure is None:
                try:
                    is_ended = handle(step)
                except BaseException as error:  # raised below, once the engine stands still (I2)
                    failure = error
            verdicts.put(is_ended)
        if failure is not None:
            raise failure
        return made.result()

    def shutdown(self) -> None:
        """End the thread; idempotent."""
        self._caller.shutdown()
