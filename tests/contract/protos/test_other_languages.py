"""What `write_protos` writes is all that a protoc of any language needs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from leptond.v1.sources import write_protos

pytestmark = pytest.mark.timeout(300)  # the generators' environment may have to be made first


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("protos")
    write_protos(directory)
    return directory


EXPECTED = {
    "cpp": {
        "leptond/v1/generation.pb.h": "namespace leptond {",
        "google/rpc/error_details.pb.h": "class RetryInfo",
    },
    "java": {
        "leptond/v1/GenerateStreamResponse.java": "package leptond.v1;",
        "leptond/v1/GenerationProto.java": "class GenerationProto",
        "com/google/rpc/Status.java": "package com.google.rpc;",
    },
    "csharp": {"Generation.cs": "namespace Leptond.V1 {"},
    "kotlin": {"leptond/v1/GenerateRequestKt.kt": "package leptond.v1;"},
    "objc": {"leptond/v1/Generation.pbobjc.h": "@interface LPTGenerateRequest"},
    "php": {"Leptond/V1/GenerateRequest.php": "namespace Leptond\\V1;"},
    "ruby": {"leptond/v1/generation_pb.rb": "module Leptond"},
}
"""Language to files that protoc makes, and what must be in each."""


@pytest.mark.parametrize("language", EXPECTED)
def test_protoc_makes_of_them(tools: Path, written: Path, tmp_path: Path, language: str) -> None:
    protoc = [str(tools / "protoc"), f"-I{written}", f"--{language}_out={tmp_path}"]
    files = sorted(str(path.relative_to(written)) for path in written.rglob("*.proto"))
    result = subprocess.run([*protoc, *files], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    for file, contains in EXPECTED[language].items():
        assert contains in (tmp_path / file).read_text()
