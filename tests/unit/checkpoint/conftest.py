from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leptond.checkpoint import Checkpoint, open_checkpoint
from tests.fixtures.tiny_gguf import TinyLlama, write_tiny_llama


@pytest.fixture
def open_tiny(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Write a tiny model that differs from the plain one as told, and open it."""

    def opened(**differences: Any) -> Checkpoint:
        return open_checkpoint(write_tiny_llama(tmp_path / "m.gguf", TinyLlama(**differences)))

    return opened
