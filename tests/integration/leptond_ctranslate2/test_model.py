"""Loading, what a load refuses, sessions beside each other, and the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace

import ctranslate2
import pytest

from leptond.backend import (
    Backend,
    BatchRow,
    BatchSession,
    ModelSource,
    SessionKind,
    SessionOptions,
)
from leptond.errors import (
    BackendCrashed,
    BackendFault,
    BackendUnavailable,
    InvalidRequest,
    InvariantViolation,
    ModelFailed,
    UnsupportedCapability,
)
from leptond.types import Task
from leptond_ctranslate2 import model as model_module
from leptond_ctranslate2.device import Device
from leptond_ctranslate2.faults import engine_errors
from leptond_ctranslate2.plugin import backend
from tests.integration.leptond_ctranslate2.conftest import ask

OPTIONS = SessionOptions(4, 32)


def ignore(stage, share):
    """Progress is not what these tests are about."""


@pytest.fixture
def copied(find_source, tmp_path):
    """A copy of a tiny model, to be damaged."""

    def copy(name, precision="float32"):
        source = find_source(name, precision)
        directory = tmp_path / name
        shutil.copytree(source.directory, directory)
        return replace(source, directory=directory)

    return copy


def test_it_is_a_backend():
    typed: Backend = backend
    assert typed.name == "ctranslate2"
    description = typed.describe()
    assert description["version"] == ctranslate2.__version__
    assert "float32" in description["cpu"]
    assert {"processor", "instruction_sets", "cores"} <= set(description)


@pytest.mark.parametrize(
    ("name", "tasks", "is_streaming"),
    [
        ("embedder", {Task.EMBED}, False),
        ("bert-cross-encoder", {Task.CLASSIFY}, False),
        ("marian", {Task.TRANSLATE, Task.GENERATE, Task.SCORE}, True),
        ("llama", {Task.GENERATE, Task.CHAT, Task.SCORE}, True),
    ],
)
def test_a_model_says_what_it_does(load, name, tasks, is_streaming):
    capabilities = load(name).capabilities
    assert capabilities.kind is SessionKind.BATCH
    assert capabilities.tasks == tasks
    assert capabilities.is_streaming is capabilities.is_cancellable is is_streaming
    assert ("seed" in capabilities.sampling_options) is False
    assert not load(name).capabilities.is_deterministic


def test_a_load_reports_its_progress(find_source):
    seen = []
    backend.load(find_source("embedder"), lambda stage, share: seen.append(share)).close()
    assert seen == sorted(seen)
    assert seen[-1] == 1


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("embedder", "model.bin"),
        ("embedder", "config.json"),
        ("embedder", "vocabulary.json"),
        ("embedder", "engine.json"),
        ("embedder", "head.json"),
        ("embedder", "head.npz"),
        ("marian", "config.json"),
        ("marian", "shared_vocabulary.json"),
        ("llama", "model.bin"),
        ("llama", "vocabulary.json"),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "truncated", "garbled"])
def test_a_damaged_file_fails_the_load_by_its_directory(copied, name, file, damage):
    source = copied(name)
    path = source.directory / file
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.write_bytes(b"this is no model" * 100)
    with pytest.raises(ModelFailed, match=str(source.directory)):
        backend.load(source, ignore)


@pytest.mark.parametrize(
    ("last", "message"), [((), "tokens; the model"), (("!",), "a token twice")]
)
def test_a_vocabulary_that_would_confuse_tokens_is_refused(copied, last, message):
    source = copied("llama")
    path = source.directory / "vocabulary.json"
    tokens = json.loads(path.read_text())
    assert "!" in tokens
    path.write_text(json.dumps([*tokens[:-1], *last]))
    with pytest.raises(ModelFailed, match=f"vocabulary.json has .*{message}"):
        backend.load(source, ignore)


def test_a_variant_of_another_precision_than_its_files_is_refused(find_source):
    source = replace(find_source("llama"), precision="int8")
    with pytest.raises(ModelFailed, match="the variant says int8, its files float32"):
        backend.load(source, ignore)


def test_a_wrong_option_fails_the_load_by_name(find_source):
    with pytest.raises(ModelFailed, match="num_threads"):
        backend.load(replace(find_source("llama"), options={"num_threads": -1}), ignore)


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8_bfloat16", "int8_float16"])
def test_a_type_that_the_processor_would_widen_is_refused_by_name(find_source, precision):
    source = find_source("marian", precision)
    with pytest.raises(UnsupportedCapability, match=f"{precision} efficiently .* supports float32"):
        backend.load(source, ignore)


@pytest.mark.skipif(ctranslate2.get_cuda_device_count() > 0, reason="it would be there")
def test_a_device_that_is_not_there_is_said_plainly(find_source):
    with pytest.raises(BackendUnavailable, match="cuda:0 is not there"):
        backend.load(replace(find_source("llama"), device="cuda:0"), ignore)


def with_limit(source, limit):
    """Say that the int8 weights of a copied model go up to `limit`."""
    path = source.directory / "engine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"int8_limit": limit}))
    return source


def test_bytes_that_would_overflow_on_this_processor_are_refused(copied, monkeypatch):
    source = copied("embedder", "int8")
    monkeypatch.setattr(model_module, "instruction_sets", lambda: ("avx2",))
    with pytest.raises(UnsupportedCapability, match="its weights of up to 127 would overflow"):
        backend.load(with_limit(source, 127), ignore)
    backend.load(with_limit(source, 64), ignore).close()
    monkeypatch.setattr(model_module, "instruction_sets", lambda: ("avx2", "avx_vnni"))
    backend.load(with_limit(source, 127), ignore).close()


def test_a_gpu_adds_bytes_without_overflow(copied, monkeypatch):
    """It is refused for being absent, or for its types; not for the range."""
    source = replace(with_limit(copied("embedder", "int8"), 127), device="cuda:0")
    monkeypatch.setattr(model_module, "instruction_sets", lambda: ("avx2",))
    monkeypatch.setattr(model_module, "find_device", lambda name: Device("cuda", 0))
    monkeypatch.setattr(Device, "check", lambda device, precision: None)
    monkeypatch.setattr(ctranslate2, "Encoder", lambda *args, **options: options)
    model = backend.load(source, ignore)
    assert model.capabilities.devices == ("cuda:0",)
    model.close()


@pytest.mark.parametrize("name", ["embedder", "marian", "llama"])
@pytest.mark.parametrize(
    ("options", "field"),
    [
        (SessionOptions(0, 32), "num_slots"),
        (SessionOptions(257, 32), "num_slots"),
        (SessionOptions(4, 0), "max_tokens"),
        (SessionOptions(4, 257), "max_tokens"),
        (SessionOptions(4, 32, num_threads=2), "num_threads"),
    ],
)
def test_a_session_that_is_too_large_is_refused_by_name(load, name, options, field):
    with pytest.raises(InvalidRequest) as refusal:
        load(name).open_session(options)
    assert refusal.value.field == field


def test_more_rows_than_the_session_takes_are_refused(open_session):
    session = open_session("embedder", num_rows=2)
    with pytest.raises(InvalidRequest, match="3 rows; at most 2 fit"):
        session.run([BatchRow([5])] * 3, lambda index, chunk: True)


def test_sessions_of_one_model_run_at_once(open_session):
    """The engine has one worker: calls wait for each other, and their tokens never mix."""
    prompts = ([5, 6, 7], [20, 21], [30, 31, 32, 33])
    sessions = [open_session("llama") for _ in prompts]
    rows = [BatchRow(prompt, options={"max_tokens": 30}) for prompt in prompts]
    expected = [ask(sessions[0], [row])[0].token_ids for row in rows]
    found: list[list[list[int]]] = [[] for _ in prompts]

    def run(index):
        for _ in range(3):
            found[index].append(ask(sessions[index], [rows[index]])[0].token_ids)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[tokens] * 3 for tokens in expected]


@pytest.mark.parametrize("name", ["embedder", "marian", "llama"])
def test_the_end_comes_in_order(find_source, name):
    model = backend.load(find_source(name), ignore)
    session = model.open_session(OPTIONS)
    with pytest.raises(InvariantViolation, match="closed before its session"):
        model.close()
    session.shutdown()
    session.shutdown()
    assert isinstance(session, BatchSession)
    with pytest.raises(InvariantViolation, match="after its shutdown"):
        session.run([BatchRow([5])], lambda index, chunk: True)
    model.close()
    model.close()
    with pytest.raises(InvariantViolation, match="a closed model"):
        model.open_session(OPTIONS)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("CUDA failed with error an illegal memory access was encountered", BackendCrashed),
        ("CUDA failed with error out of memory", BackendFault),
        ("cannot allocate", BackendFault),
    ],
)
def test_a_lost_device_is_a_crash_and_a_failed_call_is_a_fault(message, error):
    with pytest.raises(error, match=message), engine_errors():
        raise RuntimeError(message)


def test_a_session_whose_device_is_lost_is_dead(open_session, monkeypatch):
    session = open_session("embedder")

    class Lost:
        def forward_batch(self, *args, **arguments):
            raise RuntimeError("CUDA failed with error unspecified launch failure")

    monkeypatch.setattr(session, "_encoder", Lost())
    for _ in range(2):
        with pytest.raises(BackendCrashed):
            session.run([BatchRow([5])], lambda index, chunk: True)


def test_a_process_that_closed_its_model_ends_well(find_source):
    """The engine's worker may not be in a callback when the interpreter ends."""
    source: ModelSource = find_source("llama")
    code = f"""
from pathlib import Path
from leptond.backend import BatchRow, ModelSource, SessionOptions
from leptond_ctranslate2.plugin import backend
source = ModelSource(Path({str(source.directory)!r}), "float32", options={{"num_threads": 1}})
model = backend.load(source, lambda stage, share: None)
session = model.open_session(SessionOptions(4, 64))
session.run([BatchRow([5, 6])] * 4, lambda index, chunk: True)
session.shutdown()
model.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)


def test_the_engine_is_imported_when_it_is_needed():
    code = (
        "import sys; from leptond_ctranslate2.plugin import backend; "
        "assert 'ctranslate2' not in sys.modules; backend.describe(); "
        "assert 'ctranslate2' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)
