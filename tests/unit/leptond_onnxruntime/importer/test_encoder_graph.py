"""The graph that an encoder is written as, against the architecture in plain numpy."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from leptond.checkpoint import EncoderCheckpoint, open_checkpoint
from leptond.errors import UnsupportedCapability
from leptond_onnxruntime.importer import Precision, import_encoder
from tests.fixtures.tiny_models.edit import edit_json
from tests.fixtures.tiny_models.make import make_tiny_model
from tests.fixtures.tiny_models.reference import encoder_hidden

ROWS = [[2, 90, 91, 92, 3, 93, 94, 3], [2, 100, 3], [2]]
TYPES = [[0, 0, 0, 0, 0, 1, 1, 1], [0, 1, 1], [1]]


@pytest.fixture
def embedder(tmp_path):
    """A tiny encoder whose configuration differs as told."""

    def made(**changes):
        directory = make_tiny_model("embedder", tmp_path / "embedder")
        edit_json(directory / "config.json", changes)
        checkpoint = open_checkpoint(directory)
        assert isinstance(checkpoint, EncoderCheckpoint)
        return checkpoint

    return made


def write(checkpoint, directory, precision=Precision.FLOAT32):
    directory.mkdir()
    import_encoder(checkpoint, directory, precision, lambda stage, fraction: None)
    return directory / "encoder.onnx"


def padded(lines):
    result = np.zeros((len(lines), max(map(len, lines))), np.int64)
    for line, values in zip(result, lines, strict=True):
        line[: len(values)] = values
    return result


@pytest.mark.parametrize(
    "changes",
    [
        *({"hidden_act": name} for name in ("relu", "gelu", "gelu_new", "gelu_pytorch_tanh")),
        {"layer_norm_eps": 0.1},
        {"num_attention_heads": 2},
    ],
    ids=str,
)
def test_hidden_states_are_those_of_numpy(embedder, tmp_path, changes):
    checkpoint = embedder(**changes)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    path = write(checkpoint, tmp_path / "written")
    session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    feed = {
        "input_ids": padded(ROWS),
        "attention_mask": padded([[1] * len(ids) for ids in ROWS]),
        "token_type_ids": padded(TYPES),
    }
    (hidden,) = session.run(["last_hidden_state"], feed)
    assert hidden.dtype == np.float32
    assert np.isfinite(hidden).all()
    for states, ids, types in zip(hidden, ROWS, TYPES, strict=True):
        wanted = encoder_hidden(checkpoint, ids, types)
        np.testing.assert_allclose(states[: len(ids)], wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "difference"), [("relu", 1e-2), ("gelu_new", 2e-4)])
def test_another_activation_would_be_seen(embedder, name, difference):
    checkpoint = embedder(hidden_act="gelu")
    hidden = encoder_hidden(checkpoint, ROWS[0], TYPES[0])
    edit_json(checkpoint.path / "config.json", {"hidden_act": name})
    other = open_checkpoint(checkpoint.path)
    assert isinstance(other, EncoderCheckpoint)
    assert np.abs(encoder_hidden(other, ROWS[0], TYPES[0]) - hidden).max() > difference


def test_what_is_not_written_is_refused(embedder, tmp_path):
    checkpoint = embedder(hidden_act="silu")
    with pytest.raises(UnsupportedCapability, match="activation silu"):
        write(checkpoint, tmp_path / "silu")
    with pytest.raises(UnsupportedCapability, match="encoders are written as float32, int8, not"):
        write(checkpoint, tmp_path / "float16", Precision.FLOAT16)
    assert list((tmp_path / "silu").iterdir()) == list((tmp_path / "float16").iterdir()) == []
