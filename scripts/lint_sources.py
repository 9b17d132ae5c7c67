"""The project's own rules about its files, which no general linter knows.

Called by `make lint` on the files that git tracks or would track:

* no file names a package registry's host or a folder of one machine: the project must build behind
  any mirror and in any checkout;
* every `type: ignore` gives its reason, and their number only falls (`[tool.leptond.lint]`);
* a module that grows past `warn_lines` is named, past `max_lines` refused.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("leptond/", "backends/", "clients/", "scripts/", "benchmarks/")
GENERATED = ("_pb2.py", "_pb2_grpc.py", "_pb2.pyi", "_pb2_grpc.pyi")

# Label by label, so that the rule does not break itself.
_REGISTRIES = (
    ("pypi", "org"),
    ("python[h]osted", "org"),
    ("npmjs", "(?:org|com)"),
    ("yarnpkg", "com"),
    ("crates", "io"),
    ("deb", "debian", "org"),
    ("proxy", "golang", "org"),
    ("repo1?", "maven", "(?:apache[.])?org"),
)
_HOSTS = re.compile(rf"\b(?:{'|'.join('[.]'.join(parts) for parts in _REGISTRIES)})\b")
_FOLDERS = re.compile(r"(?<![\w.$}~])/(?:root|work|Users/\w+|home/(?!user\b|you\b|x\b)\w+)/\w")
_TYPE_IGNORE = re.compile(r"#\s*type:\s*ignore\b(?P<code>\[[\w, -]+\])?(?P<reason>.*)")


def check_line(line: str) -> Iterator[str]:
    """Yield what is wrong with one line of any text file."""
    if found := _HOSTS.search(line):
        yield f"names the registry host {found[0]!r}"
    if found := _FOLDERS.search(line):
        yield f"names a folder of one machine: {found[0]!r}"


def check_type_ignore(line: str) -> str | None:
    """Return what is wrong with the line's `type: ignore`, if it has one without its reason."""
    found = _TYPE_IGNORE.search(line)
    if found is None or (found["code"] and found["reason"].strip(" #")):
        return None
    return "a `type: ignore` needs its code and, in a comment after it, its reason"


def tracked_files(root: Path) -> list[str]:
    """Return the files of the checkout that git tracks or does not ignore, sorted."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in listing.split("\0") if name and (root / name).is_file())


def check_tree(root: Path, rules: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the errors and the warnings of the checkout at `root`.

    `rules` is `[tool.leptond.lint]`: `warn_lines`, `max_lines`, `max_type_ignores`.
    """
    errors: list[str] = []
    warnings: list[str] = []
    num_type_ignores = 0
    for name in tracked_files(root):
        try:
            lines = (root / name).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a binary file
        errors += [
            f"{name}:{n}: {what}" for n, line in enumerate(lines, 1) for what in check_line(line)
        ]
        if not name.endswith(".py") or name.endswith(GENERATED):
            continue
        for number, line in enumerate(lines, 1):
            num_type_ignores += _TYPE_IGNORE.search(line) is not None
            if what := check_type_ignore(line):
                errors.append(f"{name}:{number}: {what}")
        if name.startswith(PRODUCT) and len(lines) > rules["warn_lines"]:
            too_long = len(lines) > rules["max_lines"]
            (errors if too_long else warnings).append(f"{name}: {len(lines)} lines; split it")
    if num_type_ignores > rules["max_type_ignores"]:
        errors.append(
            f"{num_type_ignores} `type: ignore`, {rules['max_type_ignores']} allowed: remove one"
        )
    return errors, warnings


def main() -> int:
    """Print every finding; return 1 when one of them is an error."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        rules = tomllib.load(file)["tool"]["leptond"]["lint"]
    errors, warnings = check_tree(ROOT, rules)
    for warning in warnings:
        print(f"warning: {warning}")
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
