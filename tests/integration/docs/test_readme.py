"""What the README shows works: its blocks run against a real daemon, its table is what answers.

The daemon serves a fake model under the default model's name, so nothing is imported. Blocks of
`make` and `pip` change the machine and are checked by `tests/unit/test_docs.py` instead.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

import leptond.v1
from tests.fixtures.daemon import COMMANDS, PATIENCE_S, DaemonProcess, clean_environment

README = (Path(__file__).parents[3] / "README.md").read_text()
ADDRESS = "127.0.0.1:8600"
MODEL = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.S | re.M)
# The tools of the developer are in every environment but those of `make ci-full`.
HAS_TOOLS = (COMMANDS / "buf").exists() or "LEPTOND_TEST_EXTRAS" not in os.environ


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a daemon serves the fake model."""
    directory = tmp_path_factory.mktemp("daemon")
    with DaemonProcess(directory, "--listen", "127.0.0.1:0", "--fake-model", MODEL) as daemon:
        yield daemon.wait_ready().address


@pytest.fixture(scope="module")
def embedding_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a daemon serves the fake model and the real default embedder."""
    # Not everywhere is what imports need.
    from tests.fixtures.minilm import minilm_directory
    from tests.fixtures.tiny_store import imported_store

    directory = tmp_path_factory.mktemp("embedding")
    store = imported_store(minilm_directory(), EMBEDDER, backend="ctranslate2", precision="float32")
    options = ("--listen", "127.0.0.1:0", "--fake-model", MODEL, "--store", str(store))
    with DaemonProcess(directory, *options) as daemon:
        yield daemon.wait_ready().address


def run(command: list[str], block: str, address: str, home: Path) -> str:
    """Run a block in an empty folder, its address replaced; return what it printed."""
    environ = {"PATH": f"{COMMANDS}{os.pathsep}{os.environ['PATH']}", "HOME": str(home)}
    done = subprocess.run(
        command,
        input=block.replace(ADDRESS, address),
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE_S,
        cwd=home,
        env=clean_environment(home, environ | {"LEPTON_ADDRESS": address}),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def blocks(language: str, *first_words: str) -> list[str]:
    """Return the blocks of a language, of a shell those that begin with one of these words."""
    return [
        block
        for kind, block in BLOCKS
        if kind == language and (not first_words or block.split()[0] in first_words)
    ]


def test_every_block_is_tested():
    shell = blocks("sh", "buf", "export", "lepton", "leptond", "make", "pip")
    assert len(shell) + len(blocks("python")) == len(BLOCKS)


@pytest.mark.parametrize("block", blocks("python"))
def test_python(block: str, address: str, tmp_path: Path):
    assert run([sys.executable, "-W", "error", "-"], block, address, tmp_path).strip()


@pytest.mark.parametrize("block", blocks("sh", "export"))
def test_lepton(block: str, address: str, tmp_path: Path):
    told = run(["bash", "-euo", "pipefail"], block, address, tmp_path)
    assert '"finish_reason"' in told
    assert f"{MODEL}:fake" in told
    assert told.splitlines()[-1] == "serving"


@pytest.mark.needs("import", "ctranslate2")
@pytest.mark.parametrize("block", blocks("sh", "lepton"))
def test_lepton_of_whole_calls(block: str, embedding_address: str, tmp_path: Path):
    told = run(["bash", "-euo", "pipefail"], block, embedding_address, tmp_path)
    assert np.load(tmp_path / "vectors.npy").shape == (2, 384)
    answers = [json.loads(line) for line in told.splitlines()]
    assert [one["document"] for one in answers[:2]] == ["Paris is large.", "Dogs bark."]
    assert {label["label"] for label in answers[2]["labels"]} == {"positive", "negative"}


@pytest.mark.skipif(not HAS_TOOLS, reason="an environment without the developer's tools")
@pytest.mark.parametrize("block", blocks("sh", "buf"))
def test_buf(block: str, address: str, tmp_path: Path):
    told = run(["bash", "-euo", "pipefail"], block, address, tmp_path)
    assert "leptond.v1.TextGenerationService/ChatStream" in told
    assert "FINISH_REASON_" in told


@pytest.mark.parametrize("block", blocks("sh", "leptond"))
def test_protos(block: str, address: str, tmp_path: Path):
    run(["bash", "-euo", "pipefail"], block, address, tmp_path)
    assert (tmp_path / "protos/leptond/v1/text_generation_service.proto").is_file()


# ----------------------------------------------------------------- what works and what does not
def services() -> dict[str, ServiceDescriptor]:
    """Return every service of the API by its short name."""
    found: dict[str, ServiceDescriptor] = {}
    for module in pkgutil.iter_modules(leptond.v1.__path__):
        if module.name.endswith("_pb2"):
            file: Any = importlib.import_module(f"leptond.v1.{module.name}").DESCRIPTOR
            found |= file.services_by_name
    return found


def described() -> dict[str, tuple[set[str], set[str]]]:
    """Return the README's table: by service, the methods that work and those that do not yet."""
    rows = re.findall(r"^\| `(\w+Service)` \| ([^|]*)\| ([^|]*)\|$", README, re.M)
    return {
        name: (set(re.findall(r"\w+", works)), set(re.findall(r"\w+", not_yet)))
        for name, works, not_yet in rows
    }


def test_the_table_has_every_method():
    listed = {name: works | not_yet for name, (works, not_yet) in described().items()}
    assert listed == {name: set(service.methods_by_name) for name, service in services().items()}
    assert all(works.isdisjoint(not_yet) for works, not_yet in described().values())


def has_handler(channel: grpc.Channel, method: MethodDescriptor) -> bool:
    """Say whether the daemon serves a method; one that it does not is refused in these words."""
    asks = "stream" if method.client_streaming else "unary"
    answers = "stream" if method.server_streaming else "unary"
    path = f"/{method.containing_service.full_name}/{method.name}"
    call = getattr(channel, f"{asks}_{answers}")(path)
    empty = b""
    try:
        answer = call(iter([empty]) if method.client_streaming else empty, timeout=PATIENCE_S)
        if method.server_streaming:
            list(answer)
    except grpc.RpcError as error:
        return "is not served by this daemon" not in (error.details() or "")
    return True


@pytest.mark.parametrize("name", services())
def test_the_table_says_which_methods_answer(name: str, address: str):
    with grpc.insecure_channel(address) as channel:
        methods = services()[name].methods
        answering = {method.name for method in methods if has_handler(channel, method)}
    assert answering == described()[name][0]
