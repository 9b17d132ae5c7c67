"""One daemon with the default chat model for most tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from tests.fixtures.chat_store import CHAT_MODEL
from tests.fixtures.daemon import DaemonProcess


@pytest.fixture(scope="session")
def serve_chat(default_chat_store) -> tuple[str | Path, ...]:
    """Arguments of a daemon with the model as int8, which it preloads, and as float32."""
    for precision in ("int8", "float32"):
        default_chat_store.variant(precision)
    store = default_chat_store.directory
    return ("--listen", "127.0.0.1:0", "--store", store, "--preload", CHAT_MODEL)


@pytest.fixture(scope="session")
def chat_daemon(serve_chat, tmp_path_factory) -> Iterator[DaemonProcess]:
    """No test may stop it."""
    with DaemonProcess(tmp_path_factory.mktemp("chat"), *serve_chat) as daemon:
        yield daemon.wait_ready()
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.errors


@pytest.fixture
def chat_channel(chat_daemon: DaemonProcess, connect: Callable[..., grpc.Channel]) -> grpc.Channel:
    """A plain channel to that daemon."""
    return connect(chat_daemon.address)
