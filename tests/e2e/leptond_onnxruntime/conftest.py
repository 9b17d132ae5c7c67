"""One daemon with the default chat model for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest

from tests.fixtures.daemon import DaemonProcess

CHAT_MODEL = "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def chat_daemon(default_chat_store, tmp_path_factory) -> Iterator[DaemonProcess]:
    """It serves the model as int8, the default, and as float32; no test may stop it."""
    for precision in ("int8", "float32"):
        default_chat_store.variant(precision)
    listen = ("--listen", "127.0.0.1:0", "--store", default_chat_store.directory)
    with DaemonProcess(tmp_path_factory.mktemp("chat"), *listen, "--preload", CHAT_MODEL) as daemon:
        yield daemon.wait_ready()
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.errors


@pytest.fixture
def chat_channel(chat_daemon: DaemonProcess, connect: Callable[..., grpc.Channel]) -> grpc.Channel:
    """A plain channel to that daemon."""
    return connect(chat_daemon.address)
