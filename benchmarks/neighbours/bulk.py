"""Embeds texts in bulk until its standard input ends: a line when it began, JSON when it ended.

`python -m benchmarks.neighbours.bulk ADDRESS --model NAME`
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator

import click
import grpc

from benchmarks.embeddings.texts import mixed_texts
from leptond.v1 import common_pb2, embedding_pb2, embedding_pb2_grpc

__all__ = ["main"]

_BATCH = 64
_IN_FLIGHT = 8


@click.command
@click.argument("address")
@click.option("--model", required=True)
def main(address: str, model: str) -> None:
    """Stream batches of 64 texts."""
    is_over = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        is_over.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    texts = mixed_texts(_BATCH)

    room = threading.Semaphore(_IN_FLIGHT)  # flow control alone would let thousands go ahead

    def batches() -> Iterator[embedding_pb2.EmbedStreamRequest]:
        options = embedding_pb2.EmbedOptions(truncation=common_pb2.Truncation())
        setup = embedding_pb2.EmbedStreamSetup(model=model, embedding=options)
        yield embedding_pb2.EmbedStreamRequest(setup=setup, batch_id=0, texts=texts)
        number = 1
        while not is_over.is_set():
            room.acquire()
            yield embedding_pb2.EmbedStreamRequest(batch_id=number, texts=texts)
            number += 1

    num_texts, began = 0, time.monotonic()
    with grpc.insecure_channel(address) as channel:
        for answer in embedding_pb2_grpc.EmbeddingServiceStub(channel).EmbedStream(batches()):
            num_texts += answer.embeddings.num_vectors
            room.release()
            if num_texts == _BATCH:
                print("began", flush=True)
                began = time.monotonic()
    print(json.dumps({"texts_per_s": round(num_texts / (time.monotonic() - began), 1)}))


if __name__ == "__main__":
    main()
