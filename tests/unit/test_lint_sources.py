"""The rules of `scripts/lint_sources.py` find what they are for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts.lint_sources import check_line, check_tree, check_type_ignore

RULES = {"warn_lines": 3, "max_lines": 5, "max_type_ignores": 1}


def joined(*parts: str) -> str:
    """Build a forbidden text that this file must not contain."""
    return "".join(parts)


@pytest.mark.parametrize(
    "line",
    [
        joined("index = https://", "pypi", ".org/simple"),
        joined("https://files.", "python", "hosted", ".org/x.whl"),
        joined('"resolved": "https://registry.', "npmjs", '.org/x"'),
        joined("cd /", "work/main"),
        joined("open('/", "home/ada/models/x.gguf')"),
    ],
)
def test_hosts_and_folders_of_one_machine_are_found(line: str):
    assert list(check_line(line))


@pytest.mark.parametrize(
    "line",
    [
        "see https://onnxruntime.ai/docs",
        "pip install leptond from your index",
        "StateDirectory=/var/lib/leptond",
        joined("$HOME/", "work/leptond and ~/", "work/leptond"),
        "pypi organises packages",
    ],
)
def test_ordinary_lines_pass(line: str):
    assert list(check_line(line)) == []


@pytest.mark.parametrize(
    ("line", "is_fine"),
    [
        (joined("x = y  # type: ", "ignore[attr-defined]  # the stub lacks it"), True),
        (joined("x = y  # type: ", "ignore[attr-defined]"), False),
        (joined("x = y  # type: ", "ignore"), False),
        ("x = y", True),
    ],
)
def test_a_type_ignore_gives_code_and_reason(line: str, *, is_fine: bool):
    assert (check_type_ignore(line) is None) == is_fine


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "leptond").mkdir()
    return tmp_path


def test_a_tree_is_judged_by_every_rule(checkout: Path):
    ignore = joined("x = 1  # type: ", "ignore[misc]  # reason\n")
    (checkout / "leptond" / "long.py").write_text("pass\n" * 6)
    (checkout / "leptond" / "longish.py").write_text("pass\n" * 4)
    (checkout / "leptond" / "ignores.py").write_text(ignore * 2)
    (checkout / "notes.txt").write_text(joined("see /", "root/notes\n"))
    (checkout / "weights.bin").write_bytes(b"\xff\xfe\x00")
    errors, warnings = check_tree(checkout, RULES)
    assert [error.partition(": ")[0] for error in errors] == [
        "leptond/long.py",
        "notes.txt:1",
        "2 `type",
    ]
    assert warnings == ["leptond/longish.py: 4 lines; split it"]


def test_ignored_files_are_not_judged(checkout: Path):
    (checkout / ".gitignore").write_text("local.txt\n")
    (checkout / "local.txt").write_text(joined("/", "root/notes\n"))
    assert check_tree(checkout, RULES) == ([], [])
