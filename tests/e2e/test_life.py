"""The life of the daemon, seen by its service manager, its operator and its callers."""

from __future__ import annotations

import signal
import socket

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from leptond.backend.fake import FakeOptions, expected_tokens
from tests.fixtures.calls import details_of, ids_of, prompt, refused, text_generation
from tests.fixtures.daemon import free_port

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
TCP = ("--listen", "127.0.0.1:0")
TOY = ("--fake-model", "toy:tokens_per_s=50,mean_sentences=0")


def health(channel: grpc.Channel, name: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=name)
    answer = health_pb2_grpc.HealthStub(channel).Check(request, wait_for_ready=True, timeout=30)
    return answer.status


def watch(channel: grpc.Channel):
    return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=50)


def answer_to(text: str, num_tokens: int) -> list[int]:
    """What the fake model writes; it reads bytes."""
    return expected_tokens(list(text.encode()), num_tokens, FakeOptions(mean_sentences=0))


def test_each_address_is_printed_on_its_own_line_and_answers(launch, connect, tmp_path):
    public, admin = f"unix:{tmp_path}/leptond.sock", f"unix:{tmp_path}/admin.sock"
    listen = ("--listen", public, "--admin-listen", admin)
    daemon = launch(*TCP, *listen, *TOY).wait_ready()
    tcp, *rest = daemon.addresses
    host, _, port = tcp.partition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    assert rest == [public, admin]
    for address in daemon.addresses:
        assert health(connect(address)) == SERVING
        call = text_generation(connect(address)).GenerateStream(prompt(address, max_tokens=3))
        assert ids_of(call) == answer_to(address, 3)
    assert daemon.stop() == 0
    assert not list(tmp_path.glob("*.sock"))
    assert not list((tmp_path / "run").iterdir())


def test_it_is_ready_once_preloaded_models_are(launch, connect):
    daemon = launch(*TCP, "--fake-model", "slow:load_s=2", "--preload", "slow")
    daemon.wait_for("STATUS=loading slow")
    states = watch(connect(daemon.address))
    assert next(states).status == NOT_SERVING
    assert "READY=1" not in daemon.told
    daemon.wait_ready()
    assert next(states).status == SERVING
    assert health(connect(daemon.address), "slow") == SERVING
    daemon.wait_for("STATUS=serving: 1 models loaded")
    daemon.send_signal(signal.SIGTERM)
    daemon.wait_for("STOPPING=1")
    assert daemon.wait() == 0


def test_a_stop_lets_streams_finish_and_takes_nothing_new(launch, connect):
    daemon = launch(*TCP, *TOY, "--preload", "toy").wait_ready()
    channel = connect(daemon.address)
    stub = text_generation(channel)
    states = watch(channel)
    assert next(states).status == SERVING
    stream = stub.GenerateStream(prompt("Go on", max_tokens=100))
    messages = [next(stream)]
    daemon.send_signal(signal.SIGTERM)
    assert next(states).status == NOT_SERVING
    assert health(connect(daemon.address), "toy") == NOT_SERVING  # a new connection is answered

    error = refused(stub.GenerateStream(prompt("Too late")))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert not error.initial_metadata()
    assert details_of(error)["ErrorInfo"].reason == "SHUTTING_DOWN"
    assert details_of(error)["RetryInfo"].retry_delay.ToMilliseconds() > 0
    daemon.wait_for("STATUS=draining: 2 calls open")
    assert "STOPPING=1" in daemon.told

    messages += stream
    assert ids_of(messages) == answer_to("Go on", 100)
    assert messages[-1].info.usage.completion_tokens == 100
    assert daemon.wait() == 0


def test_a_stream_longer_than_the_grace_period_ends_unavailable(launch, connect):
    daemon = launch(*TCP, *TOY, "--grace", "0.5").wait_ready()
    stream = text_generation(connect(daemon.address)).GenerateStream(prompt("x", max_tokens=1500))
    next(stream)
    daemon.send_signal(signal.SIGTERM)
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert daemon.wait() == 0


def test_a_second_ctrl_c_does_not_wait_for_streams(launch, connect):
    daemon = launch(*TCP, *TOY, "--grace", "3600").wait_ready()
    stream = text_generation(connect(daemon.address)).GenerateStream(prompt("x", max_tokens=1500))
    next(stream)
    daemon.send_signal(signal.SIGINT)
    daemon.wait_for("STATUS=draining: 1 calls open")
    daemon.send_signal(signal.SIGINT)
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert daemon.wait() == 0


def test_a_signal_while_it_starts_is_obeyed(launch):
    daemon = launch(*TCP, "--fake-model", "slow:load_s=1", "--preload", "slow")
    daemon.wait_for("STATUS=loading slow")
    assert daemon.stop() == 0
    assert "READY=1" not in daemon.told


def test_a_worker_that_does_not_end_has_its_own_exit_code(launch, connect):
    stuck = ("--fake-model", "stuck:stall_at=1,stall_s=3600")
    daemon = launch(*TCP, *stuck, "--grace", "0").wait_ready()
    stream = text_generation(connect(daemon.address)).GenerateStream(prompt("x", model="stuck"))
    stream.initial_metadata()  # admitted
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait() == 3
    assert "leptond: stopped, but a worker would not end in time" in daemon.errors


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_two_daemons_do_not_share_an_address(launch, connect, tmp_path, kind):
    address = f"127.0.0.1:{free_port()}" if kind == "tcp" else f"unix:{tmp_path}/leptond.sock"
    first = launch("--listen", address, *TOY).wait_ready()
    second = launch("--listen", address, *TOY)
    assert second.wait() == 1
    (line,) = second.errors.splitlines()
    assert line.startswith(f"leptond: {address} is already served by process {first.pid} ")
    assert second.addresses == []
    assert health(connect(address)) == SERVING
    assert first.stop() == 0


def test_an_address_that_cannot_be_bound_is_named_with_the_reason(launch):
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = f"127.0.0.1:{stranger.getsockname()[1]}"
        for address, reason in (
            (taken, "Address already in use"),
            ("unix:/proc/leptond.sock", "No such file or directory"),
        ):
            daemon = launch("--listen", address, *TOY, "--log-level", "error")
            assert daemon.wait() == 1
            assert daemon.errors == f"leptond: cannot listen on {address}: {reason}\n"


def test_what_a_killed_daemon_left_behind_is_no_obstacle(launch, connect, tmp_path):
    path = tmp_path / "leptond.sock"
    addresses = [f"unix:{path}", f"127.0.0.1:{free_port()}"]
    listen = [word for address in addresses for word in ("--listen", address)]
    first = launch(*listen, *TOY).wait_ready()
    first.kill()
    assert path.is_socket()
    locks = list((tmp_path / "run").glob("*.lock"))
    assert len(locks) >= 2
    assert {lock.read_text() for lock in locks} == {f"{first.pid}\n"}
    second = launch(*listen, *TOY).wait_ready()
    for address in addresses:
        assert health(connect(address)) == SERVING
    assert second.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        pytest.param(
            ("--listen", "0.0.0.0:0"),
            2,
            "leptond: --listen: server.listen = '0.0.0.0:0': must be loopback or a Unix socket: "
            "nothing protects it from whoever can reach it "
            "(server.insecure, --insecure, allows it all the same)",
            id="an open address",
        ),
        pytest.param(
            ("--grace", "-1"),
            2,
            "leptond: --grace: server.grace_s = -1.0: must be a number from 0 to 3600",
            id="a value out of range",
        ),
        pytest.param(
            (*TCP, "--preload", "nobody"),
            1,
            "leptond: no model 'nobody' in the store",
            id="an unknown model",
        ),
        pytest.param(
            (*TCP, "--fake-model", "broken:load_fails=1", "--preload", "broken"),
            1,
            "leptond: the fake model's load failed, as told",
            id="a model that cannot be loaded",
        ),
        pytest.param(
            ("--fake-model", "toy:slots=0"),
            2,
            "Error: Invalid value for --fake-model: option 'slots' must be a whole number of at "
            "least 1, not '0'",
            id="an option of a fake model",
        ),
    ],
)
def test_a_start_is_refused_in_one_line_for(launch, arguments, code, line):
    daemon = launch(*arguments, "--log-level", "error")
    assert daemon.wait() == code
    assert daemon.errors.splitlines()[-1] == line
    assert "Traceback" not in daemon.errors
    assert "READY=1" not in daemon.told


def test_a_wrong_value_in_the_file_stops_the_start_with_its_place(launch, tmp_path):
    file = tmp_path / "leptond.toml"
    file.write_text("[scheduler]\nmax_queued = -5\n\n[server]\nport = 1\n")
    daemon = launch("--config", file)
    assert daemon.wait() == 2
    assert daemon.errors.splitlines() == [
        f"leptond: {file}: server.port: unknown key",
        f"leptond: {file}: scheduler.max_queued = -5: must be a whole number from 0 to 1048576",
    ]


def test_insecure_is_said_in_so_many_words(launch, connect):
    daemon = launch("--listen", "0.0.0.0:0", "--insecure", *TOY).wait_ready()
    host, _, port = daemon.address.partition(":")
    assert host == "0.0.0.0"
    assert health(connect(f"127.0.0.1:{port}")) == SERVING
    assert daemon.stop() == 0


def test_the_log_is_json_with_one_line_a_request(launch, connect):
    daemon = launch(*TCP, *TOY).wait_ready()
    stub = text_generation(connect(daemon.address))
    list(stub.GenerateStream(prompt("Hello", max_tokens=5)))
    refused(stub.GenerateStream(prompt("Hello", model="nobody")))
    assert daemon.stop() == 0
    served, not_found = daemon.log("leptond.request")
    assert served["status"] == "OK"
    assert (served["prompt_tokens"], served["completion_tokens"]) == (5, 5)
    phases = [served[f"{name}_ms"] for name in ("tokenize", "queue", "prefill", "decode")]
    assert sum(phases) <= served["duration_ms"]
    assert not_found["status"] == "NOT_FOUND"
    assert served["request_id"] != not_found["request_id"]
    assert "Hello" not in daemon.errors
