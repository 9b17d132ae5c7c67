"""A scripted daemon on a Unix socket, and the clients that talk to it."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from leptond_client import Client, RetryPolicy
from leptond_client.cli import main
from tests.integration.client.scripted import ScriptedDaemon

# The light client is tested where nothing of the daemon's is installed.
collect_ignore = (
    []
    if importlib.util.find_spec("grpc_health")
    else [
        "test_lepton_many_texts.py",  # reads numpy's files
        "test_with_daemon.py",
        "test_with_tiny_models.py",
    ]
)

QUICK = RetryPolicy(max_wait_s=5.0, initial_backoff_s=0.01, max_backoff_s=0.05)


@pytest.fixture(autouse=True)
def _no_address_from_outside(monkeypatch):
    for name in ("LEPTON_ADDRESS", "LEPTON_MODEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def daemon(tmp_path):
    with ScriptedDaemon(f"unix:{tmp_path}/daemon.sock").running() as daemon:
        yield daemon


@pytest.fixture
def client(daemon):
    with Client(daemon.address, retry=QUICK) as client:
        yield client


@dataclass(frozen=True)
class Ended:
    """How a run of the command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def lepton(daemon, monkeypatch, capsys) -> Callable[..., Ended]:
    """Run the `lepton` command in this process, against the scripted daemon, in a pipe."""

    def run(*words: str, stdin: bytes = b"", address: str = daemon.address) -> Ended:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main(["--address", address, *words], prog_name="lepton")
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capsys.readouterr())

    return run
