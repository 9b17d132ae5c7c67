"""What the daemon tells a collector when the standard OTEL_* variables say where one is."""

from __future__ import annotations

import time

import pytest

from tests.e2e.tracing import check_streamed_chat, exporting_to
from tests.fixtures.calls import ids_of, prompt, text_generation
from tests.fixtures.daemon import DaemonProcess, free_port
from tests.fixtures.otlp_receiver import otlp_receiver

TOKENS_PER_S = 200
TOY = ("--fake-model", f"toy:tokens_per_s={TOKENS_PER_S},mean_sentences=0", "--preload", "toy")
TCP = ("--listen", "127.0.0.1:0")

both_protocols = pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])


@both_protocols
def test_a_collector_gets_the_whole_tree_of_a_streamed_chat(launch, connect, protocol):
    with otlp_receiver(protocol) as receiver:
        environ = exporting_to(receiver.endpoint, protocol)
        daemon = launch(*TCP, *TOY, environ=environ).wait_ready()
        check_streamed_chat(daemon, connect(daemon.address), receiver, "toy")


@both_protocols
def test_a_dead_collector_slows_nobody(launch, connect, protocol):
    """Each token leaves at its time, and the stop does not wait for what cannot be sent."""
    environ = exporting_to(f"http://127.0.0.1:{free_port()}", protocol)
    daemon = launch(*TCP, *TOY, environ=environ).wait_ready()
    stub = text_generation(connect(daemon.address))
    for number in range(5):
        messages = list(stub.GenerateStream(prompt(f"Call {number}", max_tokens=40)))
        assert len(ids_of(messages)) == 40
        # An exporter gives up on a collector after ten seconds; the model needs 0.2.
        assert messages[-1].info.timing.total_ms < 3_000
    stopped_at = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - stopped_at < 9
    assert "spans lost" in daemon.errors


def test_without_the_variables_nothing_is_exported(launch, connect, tmp_path):
    """No connection is opened and no thread is there for it."""
    listen = ("--listen", f"unix:{tmp_path}/leptond.sock")

    def call(daemon: DaemonProcess) -> dict[str, str]:
        stream = text_generation(connect(daemon.address)).GenerateStream(prompt("Hello"))
        assert len(ids_of(stream)) == 12
        return dict(stream.trailing_metadata())

    silent = launch(*listen, *TOY).wait_ready()
    assert "x-trace-id" not in call(silent)
    num_threads = silent.num_threads
    assert silent.num_tcp_sockets == 0
    assert silent.stop() == 0

    with otlp_receiver("grpc") as receiver:  # the same look finds both when there is something
        environ = exporting_to(receiver.endpoint, "grpc")
        exporting = launch(*listen, *TOY, environ=environ).wait_ready()
        assert "x-trace-id" in call(exporting)
        receiver.wait_for_spans(1)
        assert exporting.num_threads > num_threads
        assert exporting.num_tcp_sockets == 1
        assert exporting.stop() == 0


def test_a_collector_that_hangs_does_not_hold_the_stop_up(launch, connect):
    with otlp_receiver("grpc") as receiver:
        environ = exporting_to(receiver.endpoint, "grpc")
        daemon = launch(*TCP, *TOY, environ=environ).wait_ready()
        receiver.hold()
        stub = text_generation(connect(daemon.address))
        assert len(ids_of(stub.GenerateStream(prompt("Hello", max_tokens=20)))) == 20
        receiver.wait_for_export()
        assert len(ids_of(stub.GenerateStream(prompt("Hello", max_tokens=20)))) == 20
        assert daemon.stop() == 0
    assert "UNAVAILABLE" not in [entry["status"] for entry in daemon.log("leptond.request")]
