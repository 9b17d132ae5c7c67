"""A bulk embedding whose client is killed half-way leaves nothing behind in the daemon."""

from __future__ import annotations

import subprocess
import sys
import time

import grpc
import pytest

from leptond.v1 import embedding_pb2, embedding_pb2_grpc, management_pb2, management_pb2_grpc
from tests.fixtures.tiny_store import tiny_store

pytestmark = pytest.mark.needs("import", "ctranslate2")

PATIENCE_S = 30.0
CLIENT = """
import sys, grpc
from leptond.v1 import embedding_pb2, embedding_pb2_grpc

def batches():
    setup = embedding_pb2.EmbedStreamSetup(model="embedder")
    yield embedding_pb2.EmbedStreamRequest(setup=setup)
    while True:
        yield embedding_pb2.EmbedStreamRequest(texts=["the man is eating food"] * 500)

with grpc.insecure_channel(sys.argv[1]) as channel:
    for answer in embedding_pb2_grpc.EmbeddingServiceStub(channel).EmbedStream(batches()):
        print(answer.embeddings.num_vectors, flush=True)
"""


def load_of(channel: grpc.Channel) -> management_pb2.ModelLoad:
    answer = management_pb2_grpc.ManagementServiceStub(channel).GetLoad(
        management_pb2.GetLoadRequest(), timeout=PATIENCE_S
    )
    (load,) = answer.models
    return load


def test_a_client_that_is_killed_half_way_frees_everything(launch, connect):
    daemon = launch("--listen", "127.0.0.1:0", "--store", tiny_store("embedder"))
    channel = connect(daemon.wait_ready().address)
    for _ in range(3):
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, daemon.address], stdout=subprocess.PIPE, text=True
        )
        assert client.stdout is not None
        with client, client.stdout as answers:
            assert [answers.readline().strip() for _ in range(3)] == ["500"] * 3
            assert load_of(channel).num_running + load_of(channel).num_queued > 0
            client.kill()
    until = time.monotonic() + PATIENCE_S
    while load_of(channel).num_running or load_of(channel).num_queued:
        assert time.monotonic() < until
        time.sleep(0.05)
    answer = embedding_pb2_grpc.EmbeddingServiceStub(channel).Embed(
        embedding_pb2.EmbedRequest(model="embedder", texts=["the man"]), timeout=PATIENCE_S
    )
    assert answer.embeddings.num_vectors == 1
    # An unload waits for leases: none is left.
    management_pb2_grpc.ManagementServiceStub(channel).UnloadModel(
        management_pb2.UnloadModelRequest(model="embedder"), timeout=PATIENCE_S
    )
