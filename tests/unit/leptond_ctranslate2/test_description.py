from __future__ import annotations

import json

import pytest

from leptond.errors import ModelFailed
from leptond_ctranslate2.description import (
    DESCRIPTION_FILE,
    EngineDescription,
    ModelKind,
    ModelSizes,
)
from leptond_ctranslate2.precision import Precision

DESCRIPTION = EngineDescription(
    ModelKind.TRANSLATOR,
    Precision.INT8_BFLOAT16,
    "t5",
    vocab_size=100,
    max_positions=64,
    sizes=ModelSizes(2, 32, 4, 32, 64),
    max_answer_tokens=40,
    stop_token_ids=(1,),
    suppressed_token_ids=(0, 5),
    int8_limit=64,
    cpu_model="A CPU",
    instruction_sets=("avx2",),
)


def test_it_comes_back_as_it_was_written(tmp_path):
    DESCRIPTION.write(tmp_path)
    assert EngineDescription.read(tmp_path) == DESCRIPTION


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "not of format 1"),
        ({"colour": "red"}, "unknown fields: colour"),
        ({"kind": "painter"}, "is damaged"),
        ({"sizes": {"num_layers": 1}}, "is damaged"),
        ({"stop_token_ids": 3}, "is damaged"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, change, message):
    DESCRIPTION.write(tmp_path)
    path = tmp_path / DESCRIPTION_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelFailed, match=f"{DESCRIPTION_FILE}.*{message}"):
        EngineDescription.read(tmp_path)


def test_a_missing_field_is_refused(tmp_path):
    DESCRIPTION.write(tmp_path)
    path = tmp_path / DESCRIPTION_FILE
    values = json.loads(path.read_text())
    del values["vocab_size"]
    path.write_text(json.dumps(values))
    with pytest.raises(ModelFailed, match="is damaged"):
        EngineDescription.read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "no json"])
def test_what_is_no_description_is_refused(tmp_path, text):
    (tmp_path / DESCRIPTION_FILE).write_text(text)
    with pytest.raises(ModelFailed, match=DESCRIPTION_FILE):
        EngineDescription.read(tmp_path)


def test_a_directory_without_one_is_refused(tmp_path):
    with pytest.raises(ModelFailed, match=DESCRIPTION_FILE):
        EngineDescription.read(tmp_path)


@pytest.mark.parametrize(
    ("precision", "float_type", "has_int8"),
    [
        ("float32", "float32", False),
        ("bfloat16", "bfloat16", False),
        ("int8", "float32", True),
        ("int8_float32", "float32", True),
        ("int8_bfloat16", "bfloat16", True),
        ("int8_float16", "float16", True),
    ],
)
def test_a_precision_says_both_types(precision, float_type, has_int8):
    assert Precision(precision).float_type == float_type
    assert Precision(precision).has_int8_weights is has_int8
