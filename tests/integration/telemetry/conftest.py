from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from leptond.telemetry import Telemetry, TelemetryOptions
from tests.fixtures.otlp_receiver import OtlpReceiver, otlp_receiver

PROTOCOLS = ("grpc", "http/protobuf")

Configure = Callable[..., Telemetry]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from a process without `OTEL_*`, and with a processor that sends soon."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def receiver(protocol: str) -> Iterator[OtlpReceiver]:
    with otlp_receiver(protocol) as running:
        yield running


@pytest.fixture
def configure() -> Iterator[Configure]:
    """Configure telemetry from options and the process's environment; stopped at the end."""
    with ExitStack() as stack:

        def start(**options: Any) -> Telemetry:
            made = Telemetry.configure(TelemetryOptions(**options), os.environ, version="1.2.3")
            stack.callback(made.shutdown)
            return made

        yield start
