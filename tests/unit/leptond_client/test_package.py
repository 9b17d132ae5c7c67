"""The package as a whole: what it imports, and that its two clients are alike."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from leptond_client import AsyncClient, Client, Stream
from leptond_client.aio import AsyncStream


def imported_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_the_client_imports_nothing_of_the_daemon():
    found = imported_by("leptond_client.cli")
    own = {name for name in found if name.split(".")[0] == "leptond"}
    assert {name for name in own if not name.startswith("leptond.v1")} == {"leptond"}
    assert found.isdisjoint({"numpy", "grpc_health.v1", "opentelemetry", "pydantic", "tokenizers"})


def test_the_command_starts_without_what_only_tables_and_progress_need():
    assert "rich" not in imported_by("leptond_client.cli")


def public(kind: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in inspect.getmembers(kind, callable)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(("one", "other"), [(Client, AsyncClient), (Stream, AsyncStream)])
def test_the_two_clients_have_the_same_methods_and_parameters(one, other):
    blocking, asynchronous = public(one), public(other)
    assert blocking.keys() == asynchronous.keys()
    for name, signature in blocking.items():
        twin = asynchronous[name]
        assert list(signature.parameters.values()) == list(twin.parameters.values()), name
        annotation = str(signature.return_annotation)
        assert str(twin.return_annotation) in (annotation, f"Async{annotation}"), name
