"""The daemon: the only place where its parts are put together, and their life from start to stop.

    start: telemetry → models → front (sockets bound) → preload → READY
    drain: NOT_SERVING, new work refused → running calls finish, within the grace period
    stop:  front → models → telemetry

One asyncio loop runs everything here; see `docs/architecture.md` for the other threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leptond.backend.registry import get_backend
from leptond.daemon.options import DaemonOptions, fake_variant
from leptond.host import AddressLock, Notifier, StopSignals, keep_watchdog
from leptond.memory import MemoryBudget
from leptond.models import (
    ModelLoader,
    ModelRegistry,
    Store,
)
from leptond.scheduler import ComputeBudget
from leptond.server import Front
from leptond.streaming import BlockingPool, LoopBridge, wait_future
from leptond.telemetry import Telemetry

__all__ = ["Daemon"]

_LOG = logging.getLogger(__name__)
_CLOSE_DEADLINE_S = 15.0
_STATUS_INTERVAL_S = 10.0
_LINGER_S = 0.25  # many round trips; a stop that takes so much longer is still quick


class Daemon:
    """One run of the daemon. Made on the loop that it runs on.

    Args:
        telemetry: configured already.
        notifier: tells the service manager.
        watchdog_interval_s: how often the service manager wants a sign of life; None for never.
        signals: when to stop.
        announce: called with each bound address once it accepts connections.
    """

    def __init__(
        self,
        options: DaemonOptions,
        *,
        telemetry: Telemetry,
        notifier: Notifier,
        watchdog_interval_s: float | None,
        signals: StopSignals,
        announce: Callable[[str], None],
    ) -> None:
        self._options = options
        self._telemetry = telemetry
        self._notifier = notifier
        self._watchdog_interval_s = watchdog_interval_s
        self._signals = signals
        self._announce = announce
        self._resources = contextlib.ExitStack()
        self._pool = BlockingPool(name="leptond-text")
        self._bridge = LoopBridge(asyncio.get_running_loop())

    async def run(self) -> bool:
        """Serve until a signal comes. False when something would not end in time.

        Raises:
            AddressInUse: another daemon serves one of its addresses.
            LeptondError: it could not start: an address, a preloaded model.
        """
        with self._resources as resources:
            resources.callback(self._pool.shutdown)
            self._lock_addresses()
            models = self._make_models()
            front = Front(
                self._options.front,
                models=models,
                policy=self._options.policy,
                bridge=self._bridge,
                pool=self._pool,
                telemetry=self._telemetry,
            )
            try:
                await self._start(front, models)
                await self._serve(front, models)
            finally:
                is_clean = await self._stop(front, models)
            return is_clean

    def _lock_addresses(self) -> None:
        front = self._options.front
        for address in dict.fromkeys((*front.public, *front.admin)):  # the operator's own first
            if not address.endswith(":0"):  # a port that the system picks is nobody else's
                lock = AddressLock.acquire(self._options.runtime_directory, address)
                self._resources.enter_context(lock)

    def _make_models(self) -> ModelRegistry:
        options = self._options
        loader = ModelLoader(
            options.loader,
            budget=MemoryBudget(options.memory_bytes),
            compute=ComputeBudget(options.num_cores),
            flush=self._bridge.flush,
            find_backend=get_backend,
        )
        scratch = tempfile.TemporaryDirectory(prefix="leptond-")
        fakes = Path(self._resources.enter_context(scratch))
        models = ModelRegistry(
            Store(options.stores),
            loader,
            policy=options.policy,
            fixed=tuple(fake_variant(name, fake, fakes) for name, fake in options.fake_models),
        )
        self._telemetry.observe_models(
            lambda: {model.name: model.scheduler.load() for model in models.loaded()}
        )
        return models

    async def _start(self, front: Front, models: ModelRegistry) -> None:
        await front.start()
        for address in front.addresses:
            self._announce(address)
        await self._pool.run(models.describe_all)  # so that health and reflection know every name
        for name in self._options.preload:
            self._notifier.status(f"loading {name}")
            if not await self._preload(models, name):
                return  # a signal came first
        # What lives until the end need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        front.set_ready()
        self._notifier.ready()
        _LOG.info("ready preloaded=%d", len(self._options.preload))

    async def _preload(self, models: ModelRegistry, name: str) -> bool:
        load = asyncio.ensure_future(wait_future(models.load(name)))
        stopped = asyncio.ensure_future(self._signals.wait())
        either: set[asyncio.Future[Any]] = {load, stopped}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not load.done():
            load.cancel()
            return False
        load.result()
        return True

    async def _serve(self, front: Front, models: ModelRegistry) -> None:
        """Tell the service manager how it goes until a signal ends it."""
        watchdog = None
        if self._watchdog_interval_s is not None:
            # This very loop must run for a sign of life to leave: that is the check.
            beat = keep_watchdog(self._notifier, self._watchdog_interval_s, lambda: True)
            watchdog = asyncio.create_task(beat, name="watchdog")
        while not self._signals.is_stopping:
            loaded = len(models.loaded())
            self._notifier.status(f"serving: {loaded} models loaded, {front.num_calls} calls open")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STATUS_INTERVAL_S):
                    await self._signals.wait()
        if watchdog is not None:
            watchdog.cancel()
            await asyncio.gather(watchdog, return_exceptions=True)

    async def _stop(self, front: Front, models: ModelRegistry) -> bool:
        self._notifier.stopping()
        front.drain()
        await self._drain(front)
        await front.stop()
        is_closed = await self._pool.run(models.close, _CLOSE_DEADLINE_S)
        await self._pool.run(self._telemetry.shutdown)
        _LOG.info("stopped clean=%s", is_closed)
        return is_closed

    async def _drain(self, front: Front) -> None:
        """Wait for running calls until the grace period ends or a second signal comes.

        Addresses stay open meanwhile, so that health is seen to change and refusals say why.
        """
        self._notifier.status(f"draining: {front.num_calls} calls open")
        _LOG.info("draining calls=%d grace_s=%g", front.num_calls, self._options.grace_s)
        waits = (front.wait_idle, self._signals.wait_forced)
        ends = [asyncio.ensure_future(wait()) for wait in waits]
        await asyncio.wait(ends, timeout=self._options.grace_s, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        # A call that meets a closing connection ends CANCELLED, which plain retry policies do not
        # repeat. Callers that are being refused back off first, as the refusal asks them to.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                await self._signals.wait_forced()
