"""Runs the tests with other sets of dependencies, each in a throw-away environment.

Called by `make ci-full`; `make ci-full ROW=name` runs one row. A row names what it installs, from
the checkout or from a built wheel, and which tests it runs. uv makes the environments: it resolves
"oldest" and "newest", and shares one cache between the rows. It is a tool of this script only;
`make test` installs with plain pip.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".cache" / "ci-full"
UV = Path(sys.executable).parent / "uv"

PYTHONS = ("python3.11", "python3.12", "python3.13")
ALL_TESTS = ("tests",)
# What shows that a set of dependencies works: the real engine, the real server, the real commands.
SPINE = ("tests/contract", "tests/integration", "tests/e2e")
# The same without what compares files of the checkout.
BEHAVIOUR = (
    "tests/contract/backend",
    "tests/contract/leptond_ctranslate2",
    "tests/contract/leptond_onnxruntime",
    "tests/integration",
    "tests/e2e",
)
PACKAGES = ("leptond/", "backends/leptond_", "clients/python/leptond_client/")
DAEMON_MODULES = ("numpy", "onnxruntime", "opentelemetry", "pydantic", "tokenizers", "uvloop")


@dataclass(frozen=True, slots=True)
class Row:
    """One set of dependencies and what must work with it.

    `extras` empty means the base install. `constraints` are requirement lines. `from_wheel` means a
    built wheel and a copy of the checkout without its packages, so that they are not found there.
    `needed` is the value of LEPTOND_TEST_EXTRAS: tests that need other extras are left out.
    `newest_python` takes the newest supported interpreter of this machine, else the oldest.
    """

    name: str
    purpose: str
    extras: str
    tests: tuple[str, ...]
    needed: str = "ctranslate2,import,onnxruntime"
    constraints: tuple[str, ...] = ()
    resolution: str = "highest"
    newest_python: bool = False
    from_wheel: bool = False
    absent_modules: tuple[str, ...] = ()


ROWS = (
    Row(
        "oldest",
        "every direct dependency at its lower bound",
        "all",
        ALL_TESTS,
        resolution="lowest-direct",
    ),
    Row(
        "newest",
        "every dependency at its newest, on the newest Python here",
        "all",
        ALL_TESTS,
        newest_python=True,
    ),
    Row(
        "onnxruntime-only",
        "that engine alone",
        "onnxruntime,import",
        SPINE,
        needed="import,onnxruntime",
        absent_modules=("ctranslate2",),
    ),
    Row(
        "ctranslate2-only",
        "that engine alone",
        "ctranslate2,import",
        SPINE,
        needed="ctranslate2,import",
        absent_modules=("onnxruntime",),
    ),
    Row(
        "no-engine",
        "the daemon without an engine",
        "server",
        ALL_TESTS,
        needed="",
        absent_modules=("onnxruntime", "ctranslate2", "onnx", "gguf"),
    ),
    Row(
        "onnxruntime-gpu",
        "onnxruntime-gpu in place of onnxruntime, on the CPU; decoders if it is new enough",
        "cuda,import",
        SPINE,
        needed="import",
    ),
    Row("wheel", "the built wheel in a clean environment", "all", BEHAVIOUR, from_wheel=True),
    Row(
        "client-only",
        "the base install, from the wheel: the client and nothing of the daemon",
        "",
        ("tests/unit/leptond_client", "tests/integration/client"),
        needed="",
        from_wheel=True,
        absent_modules=DAEMON_MODULES,
    ),
    Row("protobuf-6", "the older protobuf", "all", SPINE, constraints=("protobuf<7",)),
    Row("protobuf-7", "the newer protobuf", "all", SPINE, constraints=("protobuf>=7",)),
)


class RowFailed(Exception):
    """A command of a row failed; the message is that command."""


def execute(words: Sequence[object], cwd: Path, **environment: str) -> None:
    """Run the command of `words` with its output on ours; raise `RowFailed` when it fails."""
    command = [str(word) for word in words]
    shown = " ".join(command).replace(f"{ROOT}/", "")
    print(f"$ {shown}", flush=True)
    inherited = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    if subprocess.run(command, cwd=cwd, env=inherited | environment, check=False).returncode:
        raise RowFailed(shown)


def find_python(*, newest: bool) -> str:
    """Return the newest or the oldest supported interpreter on PATH; this one, if there is none."""
    for name in reversed(PYTHONS) if newest else PYTHONS:
        # Tried, not looked up: a version manager leaves commands on PATH that are switched off.
        if shutil.which(name):
            probe = subprocess.run([name, "--version"], capture_output=True, check=False)
            if probe.returncode == 0:
                return name
    return sys.executable


def install(row: Row, folder: Path, python: Path) -> None:
    """Fill the row's environment: the dependencies, the project, the test tools."""
    extras = f"[{row.extras}]" if row.extras else ""
    pip = [UV, "pip", "install", "--quiet", "--python", python]
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{line}\n" for line in row.constraints))
    if row.from_wheel:
        execute([UV, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT], ROOT)
        (wheel,) = folder.glob("*.whl")
        execute([*pip, f"leptond{extras} @ {wheel.as_uri()}"], ROOT)
    else:
        # "Direct" means those of the project file, so it is compiled before it is installed.
        compiled = folder / "requirements.txt"
        options = [option for extra in row.extras.split(",") for option in ("--extra", extra)]
        execute(
            [
                *[UV, "pip", "compile", "--quiet", "--no-header", "--resolution", row.resolution],
                *["--python", python, "--constraint", constraints, "--output-file", compiled],
                *["pyproject.toml", *options],
            ],
            ROOT,
        )
        execute([*pip, "--requirement", compiled], ROOT)
        execute([*pip, "--no-deps", "--editable", "."], ROOT)
    execute([*pip, "--group", "pyproject.toml:test", "--constraint", constraints], ROOT)
    execute([UV, "pip", "check", "--python", python], ROOT)


def check_absence(row: Row, python: Path) -> None:
    """Fail when something is importable that the row's install must not bring."""
    code = (
        "import importlib.util as u, sys; "
        "found = [name for name in sys.argv[1:] if u.find_spec(name)]; "
        "sys.exit(f'installed, but should not be: {found}' if found else 0)"
    )
    execute([python, "-c", code, *row.absent_modules], ROOT)


def copy_without_packages(target: Path) -> None:
    """Copy the checkout's files, but for the packages that the wheel brings."""
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listing.stdout.splitlines():
        if not name.startswith(PACKAGES):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def run_row(row: Row) -> None:
    """Make the row's environment anew and run its tests; raise `RowFailed`."""
    folder = ENVIRONMENTS / row.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    python = find_python(newest=row.newest_python)
    execute(
        [UV, "venv", "--quiet", "--no-python-downloads", "--python", python, folder / "venv"], ROOT
    )
    bin_folder = folder / "venv" / "bin"
    install(row, folder, bin_folder / "python")
    check_absence(row, bin_folder / "python")
    checkout = ROOT
    if row.from_wheel:
        checkout = folder / "checkout"
        copy_without_packages(checkout)
    for command in ["lepton", *(["leptond"] if row.extras else [])]:
        execute([bin_folder / command, "--help"], checkout)
    tests = [path for path in row.tests if (checkout / path).exists()]
    execute(
        [bin_folder / "pytest", *tests],
        checkout,
        PATH=f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        LEPTOND_TEST_EXTRAS=row.needed,
        LEPTOND_TEST_STORE=os.environ.get(
            "LEPTOND_TEST_STORE", str(ROOT / ".cache" / "leptond-tests")
        ),
    )


def main() -> int:
    """Run the rows asked for, all by default; print a line for each; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="|".join(row.name for row in ROWS))
    parser.add_argument("--keep", action="store_true", help="leave the environments for a look")
    options = parser.parse_args()
    known = {row.name: row for row in ROWS}
    if unknown := set(options.rows) - known.keys():
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    report: list[str] = []
    num_failed = 0
    for name in options.rows or known:
        print(f"\n=== {name}: {known[name].purpose}", flush=True)
        started_at = time.monotonic()
        try:
            run_row(known[name])
            outcome = "passed"
        except RowFailed as failure:
            outcome = f"FAILED at: {failure}"
            num_failed += 1
        report.append(f"{name:<18} {time.monotonic() - started_at:5.0f} s  {outcome}")
        if not options.keep:
            shutil.rmtree(ENVIRONMENTS / name, ignore_errors=True)
    print("\n" + "\n".join(report))
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
