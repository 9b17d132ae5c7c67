from __future__ import annotations

from pathlib import Path

import pytest

from leptond.backend.fake import write_fake_assets
from leptond.text import Tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The fake model's: one token for each byte."""
    directory: Path = tmp_path_factory.mktemp("fake")
    write_fake_assets(directory)
    return Tokenizer.load(directory)
