"""The project's files agree with each other: packages, dependencies, locks, documents."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
GROUPS: dict[str, list[str | dict[str, str]]] = PYPROJECT["dependency-groups"]
PACKAGES = [
    ROOT / package
    for package in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
]
OWN = {package.name for package in PACKAGES} | {"benchmarks", "scripts", "tests"}

# Distributions that a package may import: what its own install brings, no more.
ALLOWED_EXTRAS = {
    "leptond_client": {"numpy"},
    "leptond": {"server", "import"},
    "leptond_ctranslate2": {"server", "import", "ctranslate2"},
    "leptond_onnxruntime": {"server", "import", "onnxruntime"},
}

# The conformance suite runs under the pytest of whoever wrote the plug-in.
BROUGHT_BY_THE_USER = {("pytest", "conformance")}

# Parts of a declared distribution that come as one of their own, pinned by it to one version.
PARTS = {"pydantic_core": "pydantic"}


def requirements(*extras: str) -> Iterator[Requirement]:
    """Yield the base requirements and those of `extras`, references between extras resolved."""
    pending = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    while pending:
        requirement = Requirement(pending.pop())
        if requirement.name == PROJECT["name"]:
            pending += [line for extra in requirement.extras for line in EXTRAS[extra]]
        else:
            yield requirement


def group(name: str) -> Iterator[Requirement]:
    """Yield the requirements of a dependency group, included groups resolved."""
    for entry in GROUPS[name]:
        if isinstance(entry, dict):
            yield from group(entry["include-group"])
        else:
            yield Requirement(entry)


def pins(lock: str) -> dict[str, list[Requirement]]:
    """Return the pins of a lock file by canonical name."""
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "requirements" / lock).read_text().splitlines():
        if line and line[0] not in " #":
            requirement = Requirement(line.removesuffix("\\").strip())
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    """Yield the dotted name and the file of each of the package's modules, stubs left out."""
    for file in sorted(package.rglob("*.py")):
        if file.name.endswith(("_pb2.py", "_pb2_grpc.py")):
            continue
        parts = file.relative_to(package.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def undeclared_imports(files: Iterable[Path], declared: Collection[str]) -> list[str]:
    """Return the imports of what no distribution of `declared` brings, by file and line."""
    return [
        f"{file.relative_to(ROOT)}:{line}: {root}"
        for file in files
        for root, line in imported_roots(file)
        if root not in sys.stdlib_module_names and root not in OWN
        if distributions().get(PARTS.get(root, root), set()).isdisjoint(declared)
        if (root, file.parent.name) not in BROUGHT_BY_THE_USER
    ]


@cache
def distributions() -> dict[str, set[str]]:
    """Return which distributions bring each importable top-level name."""
    found = importlib.metadata.packages_distributions()
    return {name: {canonicalize_name(dist) for dist in dists} for name, dists in found.items()}


def imported_roots(file: Path) -> Iterator[tuple[str, int]]:
    """Yield the top-level name and the line of every import in the file, at any depth."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno


# ------------------------------------------------------------------------------------- packages
def test_leptond_imports_nothing():
    code = (
        "import sys; before = set(sys.modules); import leptond; print(*set(sys.modules) - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["leptond"]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_package_is_typed(package: Path):
    assert (package / "py.typed").is_file()


def facades() -> dict[str, set[str]]:
    """Return each package, at every depth, that only gathers names of its modules, and those names.

    A package with code of its own says itself which of its names are public, as a module does.
    """
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for name, file in modules(package):
            body = ast.parse(file.read_text()).body
            has_code = any(isinstance(node, ast.ClassDef | ast.FunctionDef) for node in body)
            if file.name != "__init__.py" or has_code:
                continue
            for node in body:
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{name}."):
                    gathered = {alias.asname or alias.name for alias in node.names}
                    found.setdefault(name, set()).update(gathered)
    return found


@pytest.mark.needs("ctranslate2", "import", "onnxruntime")  # some gather from what needs them
@pytest.mark.parametrize(("name", "gathered"), [*facades().items()], ids=list(facades()))
def test_every_public_package_lists_all_that_it_gathers(name: str, gathered: set[str]):
    """Ruff's RUF022 keeps each list sorted; this keeps it complete and true."""
    module = importlib.import_module(name)
    assert gathered - set(module.__all__) == set()
    assert [listed for listed in module.__all__ if not hasattr(module, listed)] == []
    assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.needs("import", "onnxruntime")  # what is not installed has no name to look up
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_import_is_declared(package: Path):
    declared = {canonicalize_name(r.name) for r in requirements(*ALLOWED_EXTRAS[package.name])}
    files = (file for _, file in modules(package))
    assert undeclared_imports(files, declared) == []


RIVALS = {ROOT / "benchmarks" / "embeddings" / "rival.py"}  # run in environments of their own


@pytest.mark.needs("import", "onnxruntime")
def test_every_import_of_tests_and_scripts_is_declared():
    declared = {canonicalize_name(r.name) for r in [*requirements("all"), *group("dev")]}
    folders = ("benchmarks", "scripts", "tests")
    files = {f for folder in folders for f in (ROOT / folder).rglob("*.py")} - RIVALS
    assert undeclared_imports(files, declared) == []


# --------------------------------------------------------------------------------- dependencies
def test_extra_all_is_every_extra_but_cuda():
    (everything,) = (Requirement(line) for line in EXTRAS["all"])
    assert everything.name == PROJECT["name"]
    assert everything.extras == set(EXTRAS) - {"all", "cuda"}


def test_engines_that_install_the_same_files_never_meet():
    names = {canonicalize_name(r.name) for r in requirements("all")}
    assert "onnxruntime" in names
    assert "onnxruntime-gpu" not in names


def test_every_requirement_has_a_lower_bound():
    declared = [*requirements(*EXTRAS), *group("dev")]
    unbounded = {
        str(r) for r in declared if not any(s.operator in {">=", "=="} for s in r.specifier)
    }
    assert unbounded == set()


@pytest.mark.parametrize(
    ("lock", "declared"),
    [
        pytest.param("runtime.txt", [*requirements("all"), *group("build")], id="runtime"),
        pytest.param("dev.txt", [*group("dev")], id="dev"),
    ],
)
def test_locks_satisfy_the_project_file(lock: str, declared: list[Requirement]):
    """When this fails, run `make locks`."""
    locked = pins(lock)
    stale = [
        str(requirement)
        for requirement in declared
        if not all(
            requirement.specifier.contains(next(iter(pin.specifier)).version, prereleases=True)
            for pin in locked.get(canonicalize_name(requirement.name), [Requirement("missing==0")])
        )
    ]
    assert stale == []


def test_the_two_locks_agree():
    runtime, dev = pins("runtime.txt"), pins("dev.txt")
    for name in runtime.keys() & dev.keys():
        here = {str(pin.specifier) for pin in runtime[name] if applies(pin)}
        assert here == {str(pin.specifier) for pin in dev[name] if applies(pin)}, name


def applies(pin: Requirement) -> bool:
    """Say whether the pin is for this interpreter."""
    return pin.marker is None or pin.marker.evaluate()


@pytest.mark.parametrize("lock", ["runtime.txt", "dev.txt"])
def test_every_pin_is_hashed_and_no_lock_names_a_host(lock: str):
    text = (ROOT / "requirements" / lock).read_text()
    assert "://" not in text
    for entry in re.split(r"\n(?=\S)", text):
        if entry and not entry.startswith("#"):
            assert "--hash=sha256:" in entry, entry.splitlines()[0]


# ------------------------------------------------------------------------------------ documents
def documents() -> list[Path]:
    """Return the project's Markdown files."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("backends/*.md")])


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(document: Path):
    prose = re.sub(r"```.*?```", "", document.read_text(), flags=re.S)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose)
    broken = [t for t in targets if "://" not in t and not (document.parent / t).exists()]
    assert broken == []


def test_every_make_target_in_the_documents_exists():
    targets = set(
        re.findall(r"^([a-z0-9-]+(?: [a-z0-9-]+)*):", (ROOT / "Makefile").read_text(), re.M)
    )
    known = {word for target in targets for word in target.split()}
    named = {
        word
        for document in documents()
        for word in re.findall(r"`make ([a-z][a-z0-9-]*)", document.read_text())
    }
    assert named - known == set()
