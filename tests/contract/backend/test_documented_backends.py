"""The plug-ins of the documentation, installed and held to the conformance suite as they stand."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

from leptond.backend import ModelSource, SessionOptions, StepRow, StepSession
from leptond.backend.registry import GROUP, get_backend, list_backends

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[3]
NESTED = ("-p", "no:asyncio", "-p", "no:cacheprovider")
BLOCK = re.compile(
    r"^```(?:python|toml)\n# (?P<name>\S+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


def files_of(page):
    """The files that a page shows: blocks whose first line is a comment with their name."""
    text = (ROOT / page).read_text()
    return {match["name"]: match["text"] for match in BLOCK.finditer(text)}


def install(files, folder, monkeypatch):
    """Write the files and, from the project file, what an installer leaves for importlib."""
    for name, text in files.items():
        (folder / name).write_text(text)
    if "pyproject.toml" in files:
        project = tomllib.loads(files["pyproject.toml"])["project"]
        info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        lines = []
        for group, entries in project["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(folder)


@pytest.fixture
def markov(pytester, monkeypatch):
    """The files of the example in the README, installed."""
    files = files_of("backends/README.md")
    install(files, pytester.path, monkeypatch)
    return files


def test_the_backend_in_60_lines_has_60_lines(markov):
    code = [
        line
        for line in markov["leptond_markov.py"].splitlines()
        if line.strip() and not line.startswith(("import ", "from "))
    ]
    assert len(code) <= 60


def test_the_backend_in_60_lines_passes_the_suite(pytester, markov):
    result = pytester.runpytest_inprocess(*NESTED, "test_leptond_markov.py")
    outcomes = result.parseoutcomes()
    assert outcomes.pop("passed") > 50
    assert outcomes == {}


def test_the_backend_in_60_lines_is_found_and_speaks(pytester, markov):
    # Only this one: listing imports every engine that it looks at.
    installed = [plugin for plugin in entry_points(group=GROUP) if plugin.name == "markov"]
    status = {status.name: status for status in list_backends(installed)}["markov"]
    assert status.is_usable, status.reason
    assert status.provider == "leptond-markov 0.1.0"
    (pytester.path / "text.txt").write_text("abc" * 100)
    model = get_backend("markov").load(
        ModelSource(pytester.path, "float32"), lambda stage, fraction: None
    )
    session = model.open_session(SessionOptions(1, 16))
    assert isinstance(session, StepSession)
    slot, text = session.open(), b"a"
    for _ in range(8):
        result = session.step([StepRow(slot, list(text[-1:]))])
        assert np.argmax(result.logits[0]) == result.candidate_ids[0, 0]
        text += bytes([result.candidate_ids[0, 0]])
    assert text == b"abcabcabc"


def test_the_batch_backend_of_the_guide_passes_the_suite(pytester, monkeypatch):
    install(files_of("docs/writing-a-backend.md"), pytester.path, monkeypatch)
    result = pytester.runpytest_inprocess(*NESTED, "test_leptond_unit.py")
    outcomes = result.parseoutcomes()
    assert outcomes.pop("passed") > 10
    assert outcomes == {}
