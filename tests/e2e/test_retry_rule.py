"""No initial metadata means that nothing was run: gRPC's own retryPolicy needs no more than that.

The channels here are plain: no client library of ours repeats anything.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

from leptond.v1 import generation_pb2, management_pb2
from tests.fixtures.calls import (
    DEADLINE_S,
    RETRIES,
    details_of,
    management,
    prompt,
    refused,
    text_generation,
)
from tests.fixtures.daemon import eventually, free_port

TOY = ("--fake-model", "toy:mean_sentences=0,tokens_per_s=500", "--preload", "toy")
NUM_CALLERS = 8


def whole(text: str):
    return prompt(text, kind=generation_pb2.GenerateRequest)


def statuses(daemon) -> list[str]:
    return [
        entry["status"]
        for entry in daemon.log("leptond.request")
        if entry["method"].endswith("/Generate")
    ]


def test_a_call_succeeds_by_retry_when_it_meets_a_restart(launch, connect):
    """Callers go on and on while one daemon stops and another starts on its address."""
    address = f"127.0.0.1:{free_port()}"
    first = launch("--listen", address, *TOY).wait_ready()
    channel = connect(address, *RETRIES)
    restarted = threading.Event()

    def call_until_restarted(number: int) -> int:
        num_calls = 0
        while True:
            is_last = restarted.is_set()
            answer = text_generation(channel).Generate(
                whole(f"Caller {number}"), timeout=DEADLINE_S
            )
            assert answer.info.usage.completion_tokens == 12
            num_calls += 1
            if is_last:
                return num_calls

    with ThreadPoolExecutor(NUM_CALLERS) as pool:
        callers = [pool.submit(call_until_restarted, number) for number in range(NUM_CALLERS)]
        try:
            eventually(lambda: len(statuses(first)) >= 3 * NUM_CALLERS)
            assert first.stop() == 0
            second = launch("--listen", address, *TOY).wait_ready()
        finally:
            restarted.set()
        num_calls = sum(caller.result() for caller in callers)
    assert second.stop() == 0
    served = (statuses(first) + statuses(second)).count("OK")
    assert served == num_calls  # none was lost, and none was run twice
    assert len(statuses(second)) >= NUM_CALLERS


def test_a_call_succeeds_by_retry_when_it_meets_a_loading_model(launch, connect):
    daemon = launch(
        "--listen", "127.0.0.1:0", "--fake-model", "toy:load_s=1,mean_sentences=0",
        environ={"LEPTOND_MODELS_LOAD_POLICY": "manual"},
    ).wait_ready()  # fmt: skip
    plain = text_generation(connect(daemon.address))
    error = refused(plain.GenerateStream(prompt("Hello")))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert not error.initial_metadata()
    assert details_of(error)["ErrorInfo"].reason == "MODEL_LOADING"
    assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0

    patient = connect(daemon.address, *RETRIES)
    call = text_generation(patient).Generate.future(whole("Hello"), timeout=DEADLINE_S)
    eventually(lambda: "UNAVAILABLE" in statuses(daemon))
    list(management(patient).LoadModel(management_pb2.LoadModelRequest(model="toy")))
    assert call.result().info.usage.completion_tokens == 12
    assert daemon.stop() == 0
    assert statuses(daemon)[-1] == "OK"


def test_every_call_that_meets_a_stop_was_run_or_may_be_repeated(launch, connect):
    """Callers that never back off, so that some meet the very moment of closing."""
    daemon = launch("--listen", "127.0.0.1:0", *TOY).wait_ready()
    outcomes: list[tuple[grpc.StatusCode, bool]] = []
    ended = threading.Semaphore(0)
    is_gone = threading.Event()

    def call_until_nobody_answers(number: int) -> None:
        # A connection each: a stop tells every one of them to go away.
        stub = text_generation(connect(daemon.address))
        while not is_gone.is_set():
            call = stub.Generate.future(whole(f"Caller {number}"), timeout=DEADLINE_S)
            outcomes.append((call.code(), bool(call.initial_metadata())))
            ended.release()

    with ThreadPoolExecutor(NUM_CALLERS) as pool:
        callers = [pool.submit(call_until_nobody_answers, number) for number in range(NUM_CALLERS)]
        try:
            for _ in range(3 * NUM_CALLERS):
                ended.acquire()
            assert daemon.stop() == 0
        finally:
            is_gone.set()
        for caller in callers:
            caller.result()
    run = [code for code, was_admitted in outcomes if was_admitted]
    not_run = [code for code, was_admitted in outcomes if not was_admitted]
    assert set(run) == {grpc.StatusCode.OK}
    assert set(not_run) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert statuses(daemon).count("OK") == len(run)
