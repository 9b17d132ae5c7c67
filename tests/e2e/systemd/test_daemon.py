"""The real daemon as the unit starts it, and the test in the place of systemd."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from leptond.v1 import generation_pb2, text_generation_service_pb2_grpc
from tests.e2e.systemd.service import Service


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: pytest's own are too long for Unix sockets."""
    made = Path(tempfile.mkdtemp(prefix="leptond-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def config(folder, directory) -> str:
    """The configuration of the package, on a free port and in the test's directory."""
    changes = {
        "127.0.0.1:8600": "127.0.0.1:0",
        "/run/leptond/": f"{directory}/run/",
        '#preload = ["smollm2-135m-instruct"]': 'preload = ["toy"]',
    }
    text = str((folder / "leptond.toml").read_text())
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def request(max_tokens: int) -> generation_pb2.GenerateStreamRequest:
    made = generation_pb2.GenerateStreamRequest(model="toy")
    made.input.text = "hello"
    made.sampling.max_tokens = max_tokens
    return made


def test_the_daemon_is_ready_when_sockets_and_models_are(directory, config):
    with Service(directory, config) as service:
        service.wait_for("READY=1")
        assert "STATUS=loading toy" in service.messages
        public, admin = service.runtime / "leptond.sock", service.runtime / "admin.sock"
        assert public.stat().st_mode & 0o777 == 0o660
        assert admin.stat().st_mode & 0o777 == 0o600
        with grpc.insecure_channel(f"unix:{public}") as channel:
            stub = text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
            assert list(stub.GenerateStream(request(3)))[-1].HasField("info")
        service.wait_for("STATUS=serving: 1 models loaded, 0 calls open")
        service.send(signal.SIGTERM)
        service.expect_exit(0)
        assert "STOPPING=1" in service.messages
        assert not public.exists()
        assert list(service.runtime.iterdir()) == []


def test_a_running_stream_ends_well_when_the_daemon_is_stopped(directory, config):
    with Service(directory, config) as service:
        service.wait_for("READY=1")
        with grpc.insecure_channel(f"unix:{service.runtime / 'leptond.sock'}") as channel:
            stub = text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
            stream = stub.GenerateStream(request(25))
            next(stream)
            service.send(signal.SIGTERM)
            service.wait_for("STOPPING=1")
            assert list(stream)[-1].info.usage.completion_tokens == 25
        service.expect_exit(0)


def test_a_second_signal_does_not_wait_for_streams(directory, config):
    with Service(directory, config) as service:
        service.wait_for("READY=1")
        with grpc.insecure_channel(f"unix:{service.runtime / 'leptond.sock'}") as channel:
            stub = text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
            stream = stub.GenerateStream(request(4_000))  # 80 s; the grace period is 30
            next(stream)
            service.send(signal.SIGTERM)
            service.wait_for("STOPPING=1")
            service.send(signal.SIGTERM)
            with pytest.raises(grpc.RpcError) as caught:
                list(stream)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        service.expect_exit(0)


def test_the_watchdog_hears_from_the_daemon(directory, config):
    with Service(directory, config, environ={"WATCHDOG_USEC": "200000"}) as service:
        service.wait_for("READY=1")
        for _ in range(3):
            service.messages.clear()
            service.wait_for("WATCHDOG=1")
        service.send(signal.SIGTERM)
        service.expect_exit(0)


def test_the_log_is_json_with_priorities_for_the_journal(directory, config):
    with Service(directory, config) as service:
        service.wait_for("READY=1")
        service.send(signal.SIGHUP)
        service.send(signal.SIGTERM)
        service.expect_exit(0)
        hangup = [line for line in service.log if "SIGHUP" in line]
        assert hangup
        assert hangup[0].startswith("<4>{")
        assert all(line.startswith(("<4>{", "<6>{")) for line in service.log)
        assert {entry["level"] for entry in service.log_entries} == {"info", "warning"}


def test_a_wrong_configuration_stops_the_start_for_good(directory, config):
    wrong = config.replace("#grace_s = 30.0", "grace_s = -1")
    with Service(directory, wrong) as service:
        service.expect_exit(2)  # RestartPreventExitStatus of the unit
        assert service.messages == []
        assert service.log == [
            f"leptond: {directory}/leptond.toml: server.grace_s = -1: "
            "must be a number from 0 to 3600"
        ]


def test_a_second_daemon_on_an_address_is_refused_by_name(directory, config):
    with Service(directory, config) as first:
        first.wait_for("READY=1")
        other = directory / "other"
        other.mkdir()
        with Service(other, config, environ={"RUNTIME_DIRECTORY": str(first.runtime)}) as second:
            second.expect_exit(1)
            assert len(second.log) == 1
            assert f"is already served by process {first.process.pid} " in second.log[0]
        first.send(signal.SIGTERM)
        first.expect_exit(0)


def test_a_daemon_that_was_killed_is_no_obstacle_to_the_next(directory, config):
    with Service(directory, config) as first:
        first.wait_for("READY=1")
        first.process.kill()
        first.expect_exit(-signal.SIGKILL)
    with Service(directory, config) as second:
        second.wait_for("READY=1")
        second.send(signal.SIGTERM)
        second.expect_exit(0)
