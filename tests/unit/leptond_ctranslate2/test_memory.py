from __future__ import annotations

import pytest

from leptond.backend import ModelSource, SessionOptions
from leptond.errors import ModelFailed
from leptond_ctranslate2.plugin import backend


def estimate(directory, max_tokens, precision="float32"):
    return backend.estimate_bytes(ModelSource(directory, precision), SessionOptions(4, max_tokens))


@pytest.mark.parametrize("name", ["embedder", "marian", "llama"])
def test_an_estimate_holds_the_weights(written, name):
    directory = written(name)
    size = (directory / "model.bin").stat().st_size
    assert size < estimate(directory, 32).weights_bytes < 2 * size


def test_a_generator_keeps_keys_and_values_of_every_token(written):
    directory = written("llama")
    keys_and_values = 4 * 2 * 2 * 32  # float32, both, layers, elements of a token
    assert estimate(directory, 64).slot_bytes >= 64 * keys_and_values
    assert estimate(directory, 128).slot_bytes > 1.9 * estimate(directory, 64).slot_bytes


def test_no_row_is_longer_than_the_model_takes(written):
    directory = written("embedder")
    assert estimate(directory, 10_000) == estimate(directory, 48) == estimate(directory, 0)


def test_a_directory_without_weights_is_refused_by_name(written):
    directory = written("llama")
    (directory / "model.bin").unlink()
    with pytest.raises(ModelFailed, match=r"model\.bin cannot be read"):
        estimate(directory, 32)
