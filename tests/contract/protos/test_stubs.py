"""The stubs load everywhere they must, and the check for stale ones can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import protos

pytestmark = pytest.mark.timeout(300)  # the generators' environment may have to be made first

LOAD_ALL = """
import importlib, pkgutil, google.protobuf, leptond.v1
print(google.protobuf.__version__.split(".")[0])
for module in pkgutil.iter_modules(leptond.v1.__path__, "leptond.v1."):
    importlib.import_module(module.name)
from leptond.v1 import generation_pb2, text_generation_service_pb2_grpc
request = generation_pb2.GenerateRequest(model="m", input={"text": "hé"}, sampling={"seed": 0})
parsed = generation_pb2.GenerateRequest.FromString(request.SerializeToString())
assert parsed == request and parsed.sampling.HasField("seed")
"""


def run(python: Path | str, code: str) -> str:
    command = (python, "-W", "error", "-c", code)
    result = subprocess.run(command, cwd=protos.ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_they_load_without_a_warning() -> None:
    assert run(sys.executable, LOAD_ALL).strip() in {"6", "7"}


def test_they_load_without_a_warning_under_protobuf_6(tools: Path) -> None:
    assert run(tools / "python", LOAD_ALL).strip() == "6"


def test_the_package_alone_imports_neither_grpc_nor_protobuf_nor_the_daemon() -> None:
    code = "import sys, leptond.v1; print(*sorted(sys.modules))"
    modules = run(sys.executable, code).split()
    assert not {"grpc", "google.protobuf", "numpy"} & set(modules)
    assert [name for name in modules if name.startswith("leptond")] == ["leptond", "leptond.v1"]


def test_a_stale_missing_or_forgotten_stub_is_found() -> None:
    generated = {"a_pb2.py": "x = 1\n", "b_pb2.py": "y = 1\n"}
    assert protos.find_stale(generated, generated) == []
    assert "-x = 0" in protos.find_stale(generated | {"a_pb2.py": "x = 0\n"}, generated)
    assert "+y = 1" in protos.find_stale({"a_pb2.py": "x = 1\n"}, generated)
    assert "-z = 1" in protos.find_stale(generated | {"c_pb2.py": "z = 1\n"}, generated)


def test_the_stubs_are_what_the_protos_give(tools: Path, tmp_path: Path) -> None:
    protos.generate(tmp_path)
    generated = protos.read_stubs(tmp_path)
    assert generated
    assert protos.find_stale(protos.read_stubs(protos.ROOT), generated) == []
