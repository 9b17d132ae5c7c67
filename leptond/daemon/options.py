"""What the daemon is told, and how that is made of the configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from leptond.backend.fake import FakeOptions, write_fake_assets, write_fake_options
from leptond.config import Config
from leptond.host import HostEnvironment, available_cores, available_memory_bytes
from leptond.models import LoaderOptions, LoadPolicy, ModelSizes, StoredVariant
from leptond.scheduler import SchedulerOptions
from leptond.server import FrontOptions, RequestLimits, TransportOptions
from leptond.types import Task

__all__ = ["DaemonOptions", "daemon_options", "fake_variant"]

FakeModels = Iterable[tuple[str, FakeOptions]]


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """Everything that the daemon is told.

    Attributes:
        stores: directories of models.
        runtime_directory: for the lock files of addresses.
        preload: models that are ready before the daemon is.
        memory_bytes: budget of all models together.
        num_cores: cores that engines may use together.
        fake_models: name and behaviour of each model of the fake engine.
        grace_s: how long running calls may take once it drains.
    """

    front: FrontOptions
    stores: tuple[Path, ...]
    runtime_directory: Path
    memory_bytes: int
    num_cores: int
    preload: tuple[str, ...] = ()
    policy: LoadPolicy = LoadPolicy.ON_DEMAND
    loader: LoaderOptions = field(default_factory=LoaderOptions)
    fake_models: tuple[tuple[str, FakeOptions], ...] = ()
    grace_s: float = 30.0


def daemon_options(
    config: Config, host: HostEnvironment, fake_models: FakeModels = ()
) -> DaemonOptions:
    """Make the options of a checked configuration; zeros become what the machine has."""
    server, models, limits = config.server, config.models, config.limits
    transport = server.model_dump(exclude={"listen", "admin_listen", "insecure", "grace_s"})
    return DaemonOptions(
        front=FrontOptions(
            public=server.listen,
            admin=server.admin_listen,
            slow_reader_s=limits.slow_reader_s,
            limits=RequestLimits(**limits.model_dump(exclude={"slow_reader_s"})),
            transport=TransportOptions(**transport),
        ),
        stores=models.stores,
        runtime_directory=host.make_runtime_directory(),
        memory_bytes=models.memory_bytes or available_memory_bytes(),
        num_cores=models.num_cores or available_cores(),
        preload=models.preload,
        policy=LoadPolicy(models.load_policy),
        loader=LoaderOptions(
            sizes_of=lambda name: ModelSizes(
                **models.settings_for(name).model_dump(exclude_none=True)
            ),
            backend_options=config.backend,
            scheduler=SchedulerOptions(**config.scheduler.model_dump()),
        ),
        fake_models=tuple(fake_models),
        grace_s=server.grace_s,
    )


def fake_variant(name: str, options: FakeOptions, directory: Path) -> StoredVariant:
    """Write a fake model's files below `directory` and describe it as the store would."""
    home = directory / name
    home.mkdir(parents=True)
    write_fake_assets(home, options)
    write_fake_options(home, options)
    return StoredVariant(
        model=name,
        variant="fake",
        version=1,
        backend="fake",
        precision="float32",
        tasks=frozenset({Task.GENERATE, Task.CHAT}),
        directory=home,
        assets=home,
        facts={"max_context_tokens": options.context, "title": "deterministic pseudo-language"},
    )
