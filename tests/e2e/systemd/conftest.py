from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "systemd"


@pytest.fixture
def folder() -> Path:
    """The files of the repository for systemd."""
    return FOLDER


@pytest.fixture
def tool(request: pytest.FixtureRequest) -> str:
    """The program that the test names with `indirect`; in CI its absence is a failure."""
    name = str(request.param)
    found = shutil.which(name)
    if found is None:
        message = f"{name} is not installed (Debian: systemd)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found
