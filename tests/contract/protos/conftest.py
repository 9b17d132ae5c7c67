from __future__ import annotations

from pathlib import Path

import pytest

from scripts import protos


@pytest.fixture(scope="session")
def tools() -> Path:
    """The commands of the generators' environment, which is made when it is missing."""
    return protos.ensure_tools()
