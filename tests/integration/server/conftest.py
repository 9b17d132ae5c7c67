"""The real front with real fake models, on a Unix socket and on TCP, in the test's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp

import grpc
import pytest
import pytest_asyncio

from leptond.backend.fake import FakeOptions
from leptond.backend.registry import get_backend
from leptond.daemon import fake_variant
from leptond.memory import MemoryBudget
from leptond.models import LoaderOptions, LoadPolicy, ModelLoader, ModelRegistry, Store
from leptond.scheduler import ComputeBudget, SchedulerOptions
from leptond.server import Front, FrontOptions
from leptond.server.convert.requests import RequestLimits
from leptond.server.transport import TransportOptions
from leptond.streaming import BlockingPool, LoopBridge
from leptond.telemetry import Telemetry
from leptond.v1 import management_pb2_grpc, text_generation_service_pb2_grpc


class Served:
    """A front that runs, and channels to it."""

    def __init__(self, front, models, directory):
        self.front = front
        self.models = models
        self.directory = directory
        self.budget = None
        self._channels = []

    @property
    def unix(self):
        return f"unix:{self.directory / 'leptond.sock'}"

    def channel(self, address=None, options=()):
        channel = grpc.aio.insecure_channel(address or self.unix, options=list(options))
        self._channels.append(channel)
        return channel

    def text(self, *args, **kwargs):
        channel = self.channel(*args, **kwargs)
        return text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)

    def management(self, *args, **kwargs):
        return management_pb2_grpc.ManagementServiceStub(self.channel(*args, **kwargs))

    def model(self, name, variant="fake"):
        return next(model for model in self.models.loaded() if model.name == f"{name}:{variant}")

    async def close(self):
        for channel in self._channels:
            await channel.close()


@pytest.fixture
def start(tmp_path):
    """`async with start({"toy": FakeOptions()}, ...) as served`; `store` has other models."""

    @asynccontextmanager
    async def run(
        fakes=None,
        *,
        admin_is_public=True,
        policy=LoadPolicy.ON_DEMAND,
        memory_bytes=1 << 30,
        scheduler=None,
        slow_reader_s=60.0,
        limits=None,
        telemetry=None,
        transport=None,
        ready=True,
        store=None,
    ) -> AsyncIterator[Served]:
        pool = BlockingPool()
        bridge = LoopBridge(asyncio.get_running_loop())
        budget = MemoryBudget(memory_bytes)
        loader = ModelLoader(
            LoaderOptions(scheduler=scheduler or SchedulerOptions()),
            budget=budget,
            compute=ComputeBudget(2),
            flush=bridge.flush,
            find_backend=get_backend,
        )
        fakes = {"toy": FakeOptions()} if fakes is None else fakes
        fixed = tuple(
            fake_variant(name, options, Path(mkdtemp(dir=tmp_path)))
            for name, options in fakes.items()
        )
        models = ModelRegistry(
            Store([store or tmp_path / "store"]), loader, policy=policy, fixed=fixed
        )
        public = (f"unix:{tmp_path / 'leptond.sock'}",)
        front = Front(
            FrontOptions(
                public=public,
                admin=public if admin_is_public else (f"unix:{tmp_path / 'admin.sock'}",),
                slow_reader_s=slow_reader_s,
                limits=limits or RequestLimits(),
                transport=transport or TransportOptions(),
            ),
            models=models,
            policy=policy,
            bridge=bridge,
            pool=pool,
            telemetry=telemetry or Telemetry(),
        )
        served = Served(front, models, tmp_path)
        served.budget = budget
        try:
            await front.start()
            if ready:
                front.set_ready()
            yield served
        finally:
            await served.close()
            front.drain()
            await front.stop()
            assert await pool.run(models.close, 10.0)
            pool.shutdown()
            assert budget.reserved_bytes == 0

    return run


@pytest_asyncio.fixture
async def served(start):
    """One fake model that takes no time."""
    async with start() as running:
        yield running
