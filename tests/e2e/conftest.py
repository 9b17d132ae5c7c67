"""Real daemons and plain channels to them, for one test each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.fixtures.calls import connected
from tests.fixtures.daemon import DaemonProcess


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """`launch("--fake-model", ...)` starts a daemon and does not wait; killed after the test."""
    with ExitStack() as stack:

        def run(*arguments: str | Path, **more: Any) -> DaemonProcess:
            return stack.enter_context(DaemonProcess(tmp_path, *arguments, **more))

        yield run


@pytest.fixture
def connect() -> Iterator[Callable[..., grpc.Channel]]:
    """`connect(address, *options)` is a plain channel, closed after the test."""
    with ExitStack() as stack:
        yield lambda address, *options: stack.enter_context(connected(address, options))
