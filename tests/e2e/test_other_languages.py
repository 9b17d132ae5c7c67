"""Clients in other languages, with no code of ours but the protos that the daemon gives out."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leptond.backend.fake import FakeOptions, expected_tokens
from leptond.v1.sources import write_protos
from tests.fixtures.daemon import COMMANDS, DaemonProcess, run_command

SOURCES = Path(__file__).parent / "node"
INSTALLED = Path(__file__).parents[2] / ".cache" / "node-client"
PROMPT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
SERVICES = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "leptond.v1.ManagementService",
    "leptond.v1.TextGenerationService",
    "leptond.v1.ClassificationService",
    "leptond.v1.EmbeddingService",
    "leptond.v1.TranslationService",
    "tei.v1.Embed",
    "tei.v1.Info",
    "tei.v1.Predict",
    "tei.v1.Rerank",
    "tei.v1.Tokenize",
}


def find_program(name: str, where: str) -> str:
    """Return the path of a program; without it skip the test, or fail it in CI."""
    found = shutil.which(name, path=f"{COMMANDS}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        message = f"{name} is not installed ({where})"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture
def daemon(launch, tmp_path) -> DaemonProcess:
    """It listens on TCP and on a Unix socket."""
    listen = ("--listen", "127.0.0.1:0", "--listen", f"unix:{tmp_path}/leptond.sock")
    fake = "toy:tokens_per_s=200,mean_sentences=0"
    return launch(*listen, "--fake-model", fake, "--preload", "toy").wait_ready()


@pytest.fixture
def protos(tmp_path) -> Path:
    """What `leptond protos` writes."""
    directory = tmp_path / "protos"
    done = run_command(tmp_path, "leptond", "protos", "--out", directory)
    assert (done.returncode, done.stderr) == (0, "")
    written = [Path(line) for line in done.stdout.splitlines()]
    assert sorted(directory.rglob("*.proto")) == written
    return directory


def test_the_command_writes_what_protoc_of_any_language_takes(protos, tmp_path):
    """The contract tests have protoc make code of several languages of these very files."""
    expected = tmp_path / "expected"
    names = [path.relative_to(expected) for path in write_protos(expected)]
    assert len(names) > 15
    for name in names:
        assert (protos / name).read_bytes() == (expected / name).read_bytes()


# ------------------------------------------------------------------------------------ Node
@pytest.fixture(scope="module")
def node_client() -> Callable[..., dict[str, Any]]:
    """`node_client(protos, address)`: runs the client, whose packages are installed once."""
    node = find_program("node", "Debian: nodejs")
    npm = find_program("npm", "Debian: npm")
    digest = hashlib.sha256((SOURCES / "package-lock.json").read_bytes()).hexdigest()[:16]
    home = INSTALLED / digest
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(SOURCES / name, home)
            options = ("--ignore-scripts", "--no-audit", "--no-fund")
            done = subprocess.run(
                [npm, "ci", *options], cwd=home, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            (home / "complete").touch()
        shutil.copy(SOURCES / "client.mjs", home)

    def run(protos: Path, address: str) -> dict[str, Any]:
        command: list[str | Path] = [node, home / "client.mjs", protos, address, "toy"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return run


@pytest.mark.timeout(300)  # the packages may have to be installed first
def test_a_node_client_streams_a_chat_and_reads_why_it_is_refused(daemon, protos, node_client):
    prompt = _tokens(PROMPT.format("Tell me something"))
    expected = expected_tokens(prompt, 12, FakeOptions(mean_sentences=0))
    tcp, unix, _ = daemon.addresses
    assert unix.startswith("unix:")
    for address in (tcp, unix):
        answer = node_client(protos, address)
        streamed, refused = answer["streamed"], answer["refused"]
        assert streamed["tokenIds"] == expected
        assert streamed["text"] == bytes(expected).decode()
        assert streamed["numMessages"] > 1
        assert streamed["finishReason"] == "FINISH_REASON_LENGTH"
        assert streamed["completionTokens"] == 12
        assert refused["code"] == "INVALID_ARGUMENT"
        assert not refused["sawMetadata"]
        (violation,) = refused["google.rpc.BadRequest"]["fieldViolations"]
        assert violation["field"] == "sampling.temperature"
        assert violation["description"] == refused["details"]
        assert refused["google.rpc.ErrorInfo"]["reason"] == "INVALID_REQUEST"
        assert refused["google.rpc.ErrorInfo"]["domain"] == "leptond"


def _tokens(text: str) -> list[int]:
    """The fake model reads bytes, and three control tokens."""
    control = {"<|im_start|>": [257], "<|im_end|>": [258]}
    for mark, ids in control.items():
        if mark in text:
            before, _, after = text.partition(mark)
            return [*_tokens(before), *ids, *_tokens(after)]
    return list(text.encode())


# ------------------------------------------------------------------------------------- buf
@pytest.fixture
def buf(tmp_path) -> Callable[..., str]:
    """`buf(url, *options)` runs `buf curl` and returns what it prints."""
    program = find_program("buf", "PyPI: buf-bin")

    def run(url: str, *options: str) -> str:
        command = [program, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *options, url]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
            env={**os.environ, "BUF_CACHE_DIR": str(tmp_path / "buf")},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def messages_in(text: str) -> list[dict[str, Any]]:
    """JSON objects that follow each other."""
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        message, end = decoder.raw_decode(text)
        found.append(message)
        text = text[end:]
    return found


def test_buf_curl_lists_and_calls_through_reflection(daemon, buf):
    url = f"http://{daemon.address}"
    assert set(buf(url, "--list-services").splitlines()) >= SERVICES
    assert "leptond.v1.TextGenerationService/ChatStream" in buf(url, "--list-methods").splitlines()

    sampling = {"temperature": 0, "maxTokens": 12}
    text = {"model": "toy", "input": {"text": "Hello"}, "sampling": sampling}
    expected = expected_tokens(list(b"Hello"), 12, FakeOptions(mean_sentences=0))
    for version in ("grpc-v1", "grpc-v1alpha"):
        (answer,) = messages_in(
            buf(
                f"{url}/leptond.v1.TextGenerationService/Generate",
                *("--reflect-protocol", version, "--data", json.dumps(text)),
            )
        )
        assert answer["choices"][0]["tokenIds"] == expected

    user = {"role": "ROLE_USER", "content": [{"text": "Hello"}]}
    chat = {"model": "toy", "input": {"messages": [user]}, "sampling": sampling}
    stream = messages_in(
        buf(f"{url}/leptond.v1.TextGenerationService/ChatStream", "--data", json.dumps(chat))
    )
    assert len(stream) > 1
    assert [message for message in stream if "info" in message] == stream[-1:]
    ids = [token_id for message in stream for token_id in message["chunk"]["tokenIds"]]
    prompt = _tokens(PROMPT.format("Hello"))
    assert ids == expected_tokens(prompt, 12, FakeOptions(mean_sentences=0))
