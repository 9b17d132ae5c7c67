"""What the documents say of the code is so."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from google.rpc import status_pb2

import leptond.v1
from leptond import errors
from leptond.server.convert.supported import SUPPORTED
from leptond.server.status import STATUS_OF, WireError, to_wire_error
from leptond_ctranslate2 import options as ctranslate2_options
from leptond_ctranslate2.plugin import backend as ctranslate2
from leptond_onnxruntime import options as onnxruntime_options
from leptond_onnxruntime.plugin import backend as onnxruntime

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def table(document: Path, first_header: str) -> list[list[str]]:
    """Return the cells of the rows of the only table that begins with that header."""
    text = document.read_text()
    (found,) = re.findall(rf"^\| {re.escape(first_header)} \|.*\n((?:\|.*\n)+)", text, re.M)
    _, *rows = found.splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def names(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def capabilities(kind: str) -> list[str]:
    """Return the names that the README's row of that kind lists as working."""
    rows = re.findall(rf"^\| {kind} \| ([^|]*) \|", (ROOT / "README.md").read_text(), re.M)
    assert len(rows) == 1
    return names(rows[0])


# ---------------------------------------------------------------------------------------- errors
def details_of(wire: WireError) -> list[str]:
    """Return the names of the details that leave with it."""
    packed = next(value for key, value in wire.metadata if key == "grpc-status-details-bin")
    assert isinstance(packed, bytes)
    sent = status_pb2.Status.FromString(packed).details
    return [detail.type_url.rpartition(".")[2] for detail in sent]


ERRORS = {names(name)[0]: rest for name, *rest in table(DOCS / "errors.md", "error")}


def test_every_error_is_in_the_table_of_errors():
    assert sorted(ERRORS) == sorted(error.__name__ for error in STATUS_OF)


@pytest.mark.parametrize("kind", STATUS_OF, ids=lambda kind: kind.__name__)
def test_the_table_says_how_an_error_leaves(kind: type[errors.LeptondError]):
    reason, status, besides, advice = ERRORS[kind.__name__]
    wire = to_wire_error(kind("no"), "call", is_committed=False)
    details = details_of(wire)
    assert names(reason) == [wire.reason]
    assert status == wire.code.name
    assert ["ErrorInfo", *names(besides)] == details
    assert ("grpc-retry-pushback-ms" in dict(wire.metadata)) == ("RetryInfo" in details)
    assert advice


def test_the_table_says_what_becomes_of_a_crash_after_commitment():
    wire = to_wire_error(errors.BackendCrashed("no"), "call", is_committed=True)
    assert (
        "After initial metadata it is INTERNAL, without `RetryInfo`" in ERRORS["BackendCrashed"][3]
    )
    assert wire.code.name == "INTERNAL"
    assert details_of(wire) == ["ErrorInfo"]


def test_the_page_names_the_errors_whose_text_stays_inside():
    page = (DOCS / "errors.md").read_text()
    (said,) = re.findall(r"The text of (.+?) does not leave", page, re.S)
    hidden = {kind.__name__ for kind in STATUS_OF if not kind.is_public}
    assert set(names(said)) == hidden


# ------------------------------------------------------------------ what works and what does not
def fields_by_message() -> dict[str, set[str]]:
    """Return the fields of every message of the API."""
    found = {}
    for module in pkgutil.iter_modules(leptond.v1.__path__):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"leptond.v1.{module.name}").DESCRIPTOR
            for message in file.message_types_by_name.values():
                found[message.name] = {field.name for field in message.fields}
    return found


def test_the_readme_names_every_field_that_is_refused():
    said = {
        message: set(names(refused))
        for messages, refused in table(ROOT / "README.md", "message")
        for message in names(messages)
    }
    fields = fields_by_message()
    refused = {message: fields[message] - honoured for message, honoured in SUPPORTED.items()}
    assert said == {message: left for message, left in refused.items() if left}


def test_no_field_is_honoured_that_the_api_does_not_have():
    fields = fields_by_message()
    assert {m: left for m, honoured in SUPPORTED.items() if (left := honoured - fields[m])} == {}


def test_the_readme_names_the_engines():
    declared = PYPROJECT["project"]["entry-points"]["leptond.backends"]
    assert sorted(capabilities("engines")) == sorted([*declared, "fake"])


def test_the_readme_names_the_precisions_with_the_default_first():
    assert capabilities("precisions") == list(onnxruntime.importer.precisions)


def test_the_default_precision_of_each_engine_is_the_one_that_the_readme_says():
    (row,) = re.findall(r"^\| precisions \| (.*)$", (ROOT / "README.md").read_text(), re.M)
    assert row.startswith(f"`{onnxruntime.importer.precisions[0]}` (the default on ONNX Runtime)")
    assert f"`{ctranslate2.importer.precisions[0]}` (that on CTranslate2)" in row


def test_every_option_of_an_engine_is_in_the_reference():
    said = {
        (names(engine)[0], names(key)[0]): json.loads(names(default)[0])
        for engine, key, default, _ in table(DOCS / "configuration.md", "table")
    }
    tables = {
        "[backend.onnxruntime]": asdict(onnxruntime_options.EngineOptions()),
        "[backend.ctranslate2]": asdict(ctranslate2_options.EngineOptions()),
    }
    assert said == {
        (name, key): value for name, options in tables.items() for key, value in options.items()
    }


# ---------------------------------------------------------------------------------- the commands
def commands(document: Path) -> Iterator[list[str]]:
    """Yield the words of every line of the shell blocks."""
    for block in re.findall(r"^```(?:sh|console)\n(.*?)^```", document.read_text(), re.S | re.M):
        for line in block.splitlines():
            yield line.partition("#")[0].split()


@pytest.mark.parametrize("document", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
def test_every_make_target_in_a_block_exists(document: Path):
    rules = re.findall(r"^([a-z0-9 -]+):", (ROOT / "Makefile").read_text(), re.M)
    targets = {target for rule in rules for target in rule.split()}
    asked = {words[1] for words in commands(document) if words[:1] == ["make"]}
    assert asked
    assert asked - targets == set()


def test_every_extra_that_the_readme_installs_exists():
    installs = [words for words in commands(ROOT / "README.md") if words[:2] == ["pip", "install"]]
    asked = {
        extra
        for words in installs
        for group in re.findall(r"\[([\w,]+)\]", words[2])
        for extra in group.split(",")
    }
    assert asked
    assert asked - set(PYPROJECT["project"]["optional-dependencies"]) == set()


# ------------------------------------------------------------------------- architecture, glossary
def test_the_architecture_has_the_layers_that_are_enforced():
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    (enforced,) = (contract for contract in contracts if contract["name"] == "daemon layers")
    described = [names(modules) for modules, _ in table(DOCS / "architecture.md", "module")]
    lines = [re.findall(r"\w+", layer) for layer in enforced["layers"]]
    # Two neighbours that may import each other one way only share a row of the page.
    assert [sorted(row) for row in described] == [
        sorted(row) for row in ([*lines[0], *lines[1]], *lines[2:])
    ]


def test_every_module_that_the_architecture_names_exists():
    text = (DOCS / "architecture.md").read_text()
    named = re.findall(r"`([\w./]+\.py)`", text)
    assert len(named) > 15
    homes = [ROOT / folder for folder in (".", "leptond", "backends/leptond_onnxruntime")]
    assert [name for name in named if not any((home / name).is_file() for home in homes)] == []


def test_every_name_in_the_glossary_is_in_the_code():
    text = (DOCS / "glossary.md").read_text()
    packages = {module.name for module in pkgutil.iter_modules(leptond.__path__)}
    dotted = [name for name in re.findall(r"`([\w.]+)`", text) if "." in name]
    named = [name for name in dotted if name.partition(".")[0] in packages]
    assert len(named) > 30
    for name in named:
        assert pkgutil.resolve_name(f"leptond.{name}")


# --------------------------------------------------------------------------------- figures, index
def test_every_figure_of_quality_is_one_of_the_results():
    results = json.loads((ROOT / "benchmarks/results/perplexity.json").read_text())["results"]
    said = [
        [*names(precision), *rest]
        for precision, *rest in table(DOCS / "quality.md", "precision | way")
    ]
    keys = ("precision", "way", "tokens", "perplexity", "ratio")
    assert said == [[str(line[key]) for key in keys] for line in results]


def test_the_index_lists_every_document():
    index = (DOCS / "README.md").read_text()
    listed = set(re.findall(r"\]\((?!\.\.)([^)]+)\)", index))
    assert {file.name for file in DOCS.glob("*.md")} - listed == {"README.md"}


def anchors(document: Path) -> set[str]:
    """Return what the headings of a document can be linked by."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [ROOT / "README.md", *DOCS.glob("*.md")], ids=lambda d: d.stem)
def test_every_link_to_a_heading_leads_to_one(document: Path):
    links = re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", document.read_text())
    pages = [(document.parent / file if file else document, anchor) for file, anchor in links]
    assert [anchor for page, anchor in pages if anchor not in anchors(page)] == []
