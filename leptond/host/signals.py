"""Signals of the process, as something that the event loop can wait for.

    (running) --SIGTERM, SIGINT--> (stopping) --again--> (forced)

SIGHUP is reserved for reading the configuration again: it is logged and changes nothing, so that a
terminal that goes away, or an operator used to other daemons, does not kill this one.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from types import TracebackType
from typing import Final, Self

__all__ = ["StopSignals"]

logger = logging.getLogger(__name__)

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """`async with StopSignals() as signals:` takes the signals over for the running loop."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self._forced = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in (*_STOP_SIGNALS, signal.SIGHUP):
            loop.remove_signal_handler(number)

    @property
    def is_stopping(self) -> bool:
        """Whether a signal came: finish what runs, take nothing new."""
        return self._stopping.is_set()

    @property
    def is_forced(self) -> bool:
        """Whether a second signal came: do not wait any longer."""
        return self._forced.is_set()

    async def wait(self) -> None:
        """Wait for the first signal."""
        await self._stopping.wait()

    async def wait_forced(self) -> None:
        """Wait for the second signal."""
        await self._forced.wait()

    def _on_stop(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            logger.warning("signal again, not waiting any longer signal=%s", number.name)
            self._forced.set()
        else:
            logger.info("signal, stopping signal=%s", number.name)
            self._stopping.set()

    def _on_reload(self) -> None:
        logger.warning("signal ignored signal=SIGHUP: restart to read the configuration again")
