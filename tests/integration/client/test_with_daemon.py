"""The client and `lepton` with the real daemon and fake models."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leptond_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    FinishReason,
    InvalidRequest,
    Message,
    ModelState,
    NotFound,
    PermissionDenied,
    RetryPolicy,
    ServingStatus,
    Unavailable,
)
from leptond_client.options import OutputOptions, SamplingOptions
from tests.integration.client.scripted import PATIENCE_S
from tests.integration.client.terminal import LEPTON

ROOT = Path(__file__).parents[3]
LEPTOND = Path(sys.executable).with_name("leptond")
EMBEDDER = "all-minilm-l6-v2"
GREEDY: SamplingOptions = {"temperature": 0.0, "max_tokens": 24}
PATIENT = RetryPolicy(max_wait_s=PATIENCE_S, waits_for_daemon=True)


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A daemon that runs, with its public address; the other one is `admin` beside it."""
    address = f"unix:{folder}/daemon.sock"
    log = (folder / "log").open("a+")
    process = subprocess.Popen(
        [
            *(LEPTOND, "serve", "--store", folder / "store", "--grace", "10"),
            *("--listen", address, "--admin-listen", f"unix:{folder}/admin.sock"),
            *("--fake-model", "quick", "--fake-model", "slow:tokens_per_s=20,mean_sentences=0"),
            *("--fake-model", "smollm2-135m-instruct"),
        ],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
    )
    try:
        with Client(address, retry=PATIENT) as client:
            try:
                client.check()
            except Unavailable as error:
                raise AssertionError((folder / "log").read_text()) from error
        yield address, process
    finally:
        log.close()
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("daemon")


@pytest.fixture(scope="module")
def address(folder):
    with served(folder) as (address, _):
        yield address


@pytest.fixture
def client(address):
    with Client(address) as client:
        yield client


def lepton(address, *words):
    run = subprocess.run(
        [LEPTON, "--address", address, *words], capture_output=True, text=True, check=False
    )
    return run.returncode, run.stdout, run.stderr


# --------------------------------------------------------------------------------------- answers
def test_a_stream_is_the_whole_answer(client):
    whole = client.generate("quick", "Once upon", **GREEDY)
    stream = client.generate_stream("quick", "Once upon", **GREEDY)
    deltas = list(stream)
    assert "".join(delta.text for delta in deltas) == stream.result.text == whole.text
    assert stream.result.token_ids == whole.token_ids
    assert deltas[-1].finish_reason is whole.finish_reason
    assert whole.usage.completion_tokens == len(whole.token_ids)
    assert whole.timing.total_ms >= whole.timing.first_token_ms > 0
    assert whole.model == "quick:fake"


async def asked(address):
    async with AsyncClient(address) as client:
        stream = client.chat_stream("quick", [Message("user", "Hello")], **GREEDY)
        texts = [delta.text async for delta in stream]
        whole = await client.chat("quick", [Message("user", "Hello")], **GREEDY)
        return "".join(texts), stream.result, whole


def test_asyncio_and_the_command_get_the_same_answer(address, client):
    said = client.chat("quick", [{"role": "user", "content": "Hello"}], **GREEDY)
    text, streamed, whole = asyncio.run(asked(address))
    assert text == streamed.text == whole.text == said.text
    flags = ("--temperature", "0", "--max-tokens", "24")
    code, out, _ = lepton(address, "chat", "-m", "quick", *flags, "--json", "Hello")
    found = json.loads(out)
    assert code == 0
    assert found["text"] == said.text
    assert tuple(found["token_ids"]) == said.token_ids
    assert found["usage"]["prompt_tokens"] == said.usage.prompt_tokens
    assert lepton(address, "chat", "-m", "quick", *flags, "Hello")[1].rstrip("\n") == said.text


def test_logprobs_and_stops_arrive(client):
    extras: OutputOptions = {"logprobs": 2, "prompt_token_ids": True}
    result = client.generate("quick", "hello", temperature=0.0, max_tokens=8, **extras)
    assert result.finish_reason is FinishReason.LENGTH
    assert len(result.logprobs) == len(result.token_ids)
    assert all(len(entry.top) == 2 for entry in result.logprobs)
    assert b"".join(entry.token for entry in result.logprobs).decode() == result.text
    assert result.prompt_token_ids
    stop = result.text[1]
    ended = client.generate("quick", "hello", stop=stop, **GREEDY)
    assert ended.text == result.text[0]
    assert (ended.finish_reason, ended.matched_stop) == (FinishReason.STOP, stop)


def test_tokens_go_there_and_back(address, client):
    tokens = client.tokenize("quick", "Grüße", details=True)
    assert b"".join(tokens.token_bytes).decode() == "Grüße"
    assert client.detokenize("quick", tokens.token_ids) == "Grüße"
    code, out, _ = lepton(address, "tokenize", "-m", "quick", "--json", "Grüße")
    assert (code, json.loads(out)) == (0, {"token_ids": list(tokens.token_ids)})
    chat = client.tokenize("quick", [Message("user", "Hello")])
    assert "Hello" in chat.rendered


# ------------------------------------------------------------------------------------ the errors
@pytest.mark.parametrize(
    ("given", "error", "field"),
    [
        ({"temperature": math.nan}, InvalidRequest, "sampling.temperature"),
        ({"logprobs": 21}, InvalidRequest, "output.logprobs"),
        ({"stop": ""}, InvalidRequest, "sampling.stop[0]"),
        ({"model_version": 9}, NotFound, "model_version"),
    ],
)
def test_a_refusal_names_the_field(client, given, error, field):
    with pytest.raises(error) as caught:
        client.generate("quick", "hi", **given)
    assert caught.value.field == field
    assert caught.value.reason
    assert caught.value.request_id
    assert not caught.value.was_admitted


def test_a_model_that_is_not_there_is_not_found(address, client):
    with pytest.raises(NotFound):
        client.generate("nothing", "hi")
    code, _, err = lepton(address, "generate", "-m", "nothing", "hi")
    assert code == 1
    assert "MODEL_NOT_FOUND, request " in err


def test_several_models_must_be_told_apart(address):
    code, _, err = lepton(address, "generate", "hi")
    assert code == 2
    assert "quick, slow, smollm2-135m-instruct" in err


def test_the_timeout_ends_a_stream(client):
    with pytest.raises(DeadlineExceeded):
        list(client.generate_stream("slow", "hi", timeout=0.5))


def test_leaving_a_stream_frees_its_place(client):
    for _ in client.generate_stream("slow", "hi"):
        assert client.get_load("slow").models[0].num_running == 1
        break
    is_free = threading.Event()
    for _ in range(round(PATIENCE_S * 20)):
        if client.get_load("slow").models[0].num_running == 0:
            is_free.set()
            break
        is_free.wait(0.05)
    assert is_free.is_set()


# ------------------------------------------------------------------------------------ management
def test_models_come_and_go_on_the_administrators_address(folder, address, client):
    with pytest.raises(PermissionDenied):
        list(client.load_model("quick"))
    with Client(f"unix:{folder}/admin.sock") as admin:
        stream = admin.load_model("quick")
        assert list(stream)[-1].fraction == 1.0
        assert stream.result.state is ModelState.READY
        assert "quick:fake" in [load.model for load in admin.get_load().models]
        assert admin.unload_model("quick").models == ("quick:fake",)
        assert admin.models("quick")[0].variants[0].state is ModelState.AVAILABLE
    assert lepton(address, "models", "load", "quick")[0] == 1
    assert lepton(f"unix:{folder}/admin.sock", "models", "load", "quick")[:2] == (
        0,
        "quick:fake is ready\n",
    )


def test_health_is_told_of_everything(address, client):
    health = client.health()
    assert {"", "quick", "leptond.v1.TextGenerationService"} <= health.keys()
    assert set(health.values()) == {ServingStatus.SERVING}
    assert client.check("quick") is ServingStatus.SERVING
    assert next(iter(client.watch("nothing"))) is ServingStatus.SERVICE_UNKNOWN
    assert lepton(address, "health", "quick")[:2] == (0, "serving\n")
    assert lepton(address, "health", "nothing")[0] == 1


# ------------------------------------------------------------------------------ a restart
def test_a_client_outlives_its_daemon(tmp_path):
    with served(tmp_path) as (address, process), Client(address) as client:
        before = client.generate("quick", "Once upon", **GREEDY)
        statuses = client.watch()
        watch = iter(statuses)
        assert next(watch) is ServingStatus.SERVING
        running = client.generate_stream("slow", "hi", max_tokens=20)
        texts = iter(running)
        next(texts)
        process.send_signal(signal.SIGTERM)
        assert next(watch) is ServingStatus.NOT_SERVING
        assert sum(1 for _ in texts) > 0
        assert running.result.finish_reason is FinishReason.LENGTH
        statuses.cancel()
        assert process.wait(PATIENCE_S) == 0
        after = []
        asker = threading.Thread(
            target=lambda: after.append(client.generate("quick", "Once upon", **GREEDY))
        )
        asker.start()
        with served(tmp_path):
            asker.join(PATIENCE_S)
        assert [result.text for result in after] == [before.text]


# --------------------------------------------------------------------------- what the page shows
def examples():
    page = (ROOT / "docs" / "client.md").read_text()
    found = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [code for code in found if EMBEDDER not in code]  # run in test_with_tiny_models.py


@pytest.mark.parametrize("code", examples())
def test_every_example_of_the_page_runs(address, code):
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LEPTON_ADDRESS": address},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.strip()


def test_the_page_says_the_exit_codes_that_the_command_says(address):
    page = (ROOT / "docs" / "client.md").read_text()
    documented = dict(re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE))
    said = dict(re.findall(r"^ +(\d+)  (.*)$", lepton(address, "--help")[1], re.MULTILINE))
    assert len(said) == 6
    assert documented == {
        code: text.replace("--timeout", "`--timeout`") for code, text in said.items()
    }
