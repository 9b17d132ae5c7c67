"""A thousand streams that are opened and dropped leave nothing behind."""

from __future__ import annotations

import grpc
import pytest

from leptond.backend.fake import FakeOptions, expected_tokens
from leptond.v1 import management_pb2
from tests.fixtures.calls import connected, ids_of, management, prompt, text_generation
from tests.fixtures.daemon import DaemonProcess, eventually

NUM_STREAMS = 1000
NUM_SLOTS = 16
WAVE = 100  # streams at once: the slots are full, and the others wait
TOKENS_PER_S = 100
NEIGHBOUR_TOKENS = 500


@pytest.fixture
def daemon(launch) -> DaemonProcess:
    fake = f"toy:mean_sentences=0,context=8192,slots={NUM_SLOTS},tokens_per_s={TOKENS_PER_S}"
    return launch("--listen", "127.0.0.1:0", "--fake-model", fake, "--preload", "toy").wait_ready()


def load_of(channel: grpc.Channel) -> management_pb2.ModelLoad:
    (load,) = management(channel).GetLoad(management_pb2.GetLoadRequest()).models
    return load


def busy(channel: grpc.Channel) -> tuple[int, int]:
    """How many streams run, and how many wait."""
    load = load_of(channel)
    return load.num_running, load.num_queued


def drop(address: str, *, politely: bool) -> None:
    """Open streams until some run and some wait, and leave: by cancelling, or by hanging up."""
    with connected(address) as channel:
        stub = text_generation(channel)
        calls = [
            stub.GenerateStream(prompt(f"Stream {number}", max_tokens=8000))
            for number in range(WAVE)
        ]
        for call in calls:
            call.initial_metadata()  # admitted
        eventually(lambda: busy(channel) == (NUM_SLOTS, 1 + WAVE - NUM_SLOTS))
        if politely:
            for call in calls:
                call.cancel()


def test_nothing_is_left_of_them_and_their_neighbour_never_notices(daemon, connect):
    channel = connect(daemon.address)
    neighbour = text_generation(channel).GenerateStream(
        prompt("The neighbour", max_tokens=NEIGHBOUR_TOKENS)
    )
    messages = [next(neighbour)]

    def drop_wave(number: int) -> None:
        drop(daemon.address, politely=number % 2 == 0)
        eventually(lambda: busy(channel) == (1, 0))

    drop_wave(0)  # so that every pool has grown
    num_threads, num_descriptors = daemon.num_threads, daemon.num_descriptors
    for number in range(NUM_STREAMS // WAVE):
        drop_wave(number)
    eventually(lambda: daemon.num_descriptors <= num_descriptors)
    assert daemon.num_threads <= num_threads

    messages += neighbour
    truth = FakeOptions(mean_sentences=0)
    assert ids_of(messages) == expected_tokens(list(b"The neighbour"), NEIGHBOUR_TOKENS, truth)
    eventually(lambda: load_of(channel).num_running == 0)
    load = load_of(channel)
    assert (load.num_slots_used, load.kv_used_tokens, load.queued_tokens) == (0, 0, 0)
    # A model is unloaded once nobody holds a lease of it any more.
    unload = management_pb2.UnloadModelRequest(model="toy")
    assert management(channel).UnloadModel(unload, timeout=10).models == ["toy:fake"]
    assert daemon.stop() == 0
    statuses = [entry["status"] for entry in daemon.log("leptond.request")]
    assert statuses.count("CANCELLED") == NUM_STREAMS + WAVE
    assert "Traceback" not in daemon.errors
