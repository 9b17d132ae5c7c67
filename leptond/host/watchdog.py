"""Signs of life for the service manager's watchdog."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from leptond.host.notify import Notifier

__all__ = ["keep_watchdog"]

logger = logging.getLogger(__name__)


async def keep_watchdog(
    notifier: Notifier, interval_s: float, is_healthy: Callable[[], bool]
) -> None:
    """Give a sign of life every `interval_s`, for as long as `is_healthy` says so.

    Runs on the event loop until it is cancelled: a loop that hangs, or a part that `is_healthy`
    finds dead, stays silent, and the service manager then restarts the daemon.
    """
    was_healthy = True
    while True:
        now_healthy = is_healthy()
        if now_healthy:
            notifier.watchdog()
        elif was_healthy:
            logger.error("watchdog silent: the daemon is not healthy")
        was_healthy = now_healthy
        await asyncio.sleep(interval_s)
