"""Opens directories as the tests of one kind of checkpoint want them."""

from __future__ import annotations

from pathlib import Path

import pytest

from leptond.checkpoint import EncoderCheckpoint, EncoderDefaults, open_checkpoint
from leptond.errors import LeptondError


def open_encoder(directory: Path) -> EncoderCheckpoint:
    checkpoint = open_checkpoint(directory)
    assert isinstance(checkpoint, EncoderCheckpoint)
    return checkpoint


def encoder_defaults(directory: Path) -> EncoderDefaults:
    found = open_encoder(directory).text.encoder
    assert isinstance(found, EncoderDefaults)
    return found


def refused(directory: Path, error: type[LeptondError], message: str) -> None:
    """Opening fails with one line that names the directory and holds `message`."""
    with pytest.raises(error, match=message) as caught:
        open_checkpoint(directory)
    assert str(directory) in caught.value.message
    assert "\n" not in caught.value.message
