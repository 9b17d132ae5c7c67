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
from leptond.host import AddressLock, Notifier, StopSignals
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


class Daemon:
    """One run of the daemon.

    Args:
        telemetry: configured already.
        notifier: tells the service manager.
        announce: called with each bound address once it accepts connections.
    """

    def __init__(
        self,
        options: DaemonOptions,
        *,
        telemetry: Telemetry,
        notifier: Notifier,
        announce: Callable[[str], None],
    ) -> None:
        self._options = options
        self._telemetry = telemetry
        self._notifier = notifier
        self._announce = announce

    async def run(self, signals: StopSignals) -> bool:
        """Serve until a signal comes. False when something would not end in time.

        Raises:
            AddressInUse: another daemon serves one of its addresses.
            LeptondError: it could not start: an address, a preloaded model.
        """
        with contextlib.ExitStack() as stack:
            for address in {*self._options.front.public, *self._options.front.admin}:
                if not address.endswith(":0"):  # a port that the system picks is nobody else's
                    lock = AddressLock.acquire(self._options.runtime_directory, address)
                    stack.enter_context(lock)
            pool = BlockingPool(name="leptond-text")
            stack.callback(pool.shutdown)
            bridge = LoopBridge(asyncio.get_running_loop())
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leptond-")))
            models = self._make_models(bridge, directory)
            self._telemetry.observe_models(
                lambda: {model.name: model.scheduler.load() for model in models.loaded()}
            )
            front = Front(
                self._options.front,
                models=models,
                policy=self._options.policy,
                bridge=bridge,
                pool=pool,
                telemetry=self._telemetry,
            )
            try:
                await self._start(front, models, pool, signals)
                await self._serve(front, models, signals)
            finally:
                is_clean = await self._stop(front, models, pool, signals)
            return is_clean

    def _make_models(self, bridge: LoopBridge, directory: Path) -> ModelRegistry:
        options = self._options
        loader = ModelLoader(
            options.loader,
            budget=MemoryBudget(options.memory_bytes),
            compute=ComputeBudget(options.num_cores),
            flush=bridge.flush,
            find_backend=get_backend,
        )
        fixed = tuple(fake_variant(name, fake, directory) for name, fake in options.fake_models)
        return ModelRegistry(Store(options.stores), loader, policy=options.policy, fixed=fixed)

    async def _start(
        self, front: Front, models: ModelRegistry, pool: BlockingPool, signals: StopSignals
    ) -> None:
        await front.start()
        for address in front.addresses:
            self._announce(address)
        await pool.run(models.describe_all)  # so that health and reflection know every name
        for name in self._options.preload:
            self._notifier.status(f"loading {name}")
            load = asyncio.ensure_future(wait_future(models.load(name)))
            stopped = asyncio.ensure_future(signals.wait())
            either: set[asyncio.Future[Any]] = {load, stopped}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if not load.done():
                load.cancel()
                return  # a signal came first
            load.result()
        # What lives until the end need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        front.set_ready()
        self._notifier.ready()
        _LOG.info("ready preloaded=%d", len(self._options.preload))

    async def _serve(self, front: Front, models: ModelRegistry, signals: StopSignals) -> None:
        """Tell the service manager how it goes until a signal ends it."""
        while True:
            loaded = len(models.loaded())
            self._notifier.status(f"serving: {loaded} models loaded, {front.num_calls} calls open")
            try:
                async with asyncio.timeout(_STATUS_INTERVAL_S):
                    await signals.wait()
                    return
            except TimeoutError:
                continue

    async def _stop(
        self, front: Front, models: ModelRegistry, pool: BlockingPool, signals: StopSignals
    ) -> bool:
        self._notifier.stopping()
        front.drain()
        await self._drain(front, signals)
        await front.stop()
        is_closed = await pool.run(models.close, _CLOSE_DEADLINE_S)
        await pool.run(self._telemetry.shutdown)
        _LOG.info("stopped clean=%s", is_closed)
        return is_closed

    async def _drain(self, front: Front, signals: StopSignals) -> None:
        """Wait for running calls until the grace period ends or a second signal comes.

        Addresses stay open meanwhile, so that health is seen to change and refusals say why.
        """
        self._notifier.status(f"draining: {front.num_calls} calls open")
        _LOG.info("draining calls=%d grace_s=%g", front.num_calls, self._options.grace_s)
        ends = [asyncio.ensure_future(wait()) for wait in (front.wait_idle, signals.wait_forced)]
        await asyncio.wait(ends, timeout=self._options.grace_s, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
