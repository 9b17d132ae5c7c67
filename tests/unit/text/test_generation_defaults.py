"""generation.json is read as it was written, or refused by field."""

from __future__ import annotations

import dataclasses
import json

import pytest

from leptond.errors import ModelFailed
from leptond.text.generation_defaults import read_generation_defaults
from tests.unit.text.tiny import GENERATION


def written(directory, **changes):
    fields = dataclasses.asdict(GENERATION) | changes
    fields = {name: value for name, value in fields.items() if value is not ...}
    (directory / "generation.json").write_text(json.dumps(fields))
    return directory


def test_defaults_are_read_as_they_were_written(tmp_path):
    directory = written(tmp_path, sampling={"temperature": 0.7})
    expected = dataclasses.replace(GENERATION, sampling={"temperature": 0.7})
    assert read_generation_defaults(directory) == expected


def test_what_has_a_default_may_be_missing(tmp_path):
    directory = written(tmp_path, sampling=..., pad_token_id=..., unknown_token_id=...)
    assert read_generation_defaults(directory) == dataclasses.replace(GENERATION, pad_token_id=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop_token_ids": ...}, "stop_token_ids: missing"),
        ({"stop_token_ids": [1, "2"]}, "stop_token_ids: .* is not a list of token ids"),
        ({"stop_token_ids": 1}, "stop_token_ids: 1 is not what"),
        ({"bos_token_id": True}, "bos_token_id: True is not what"),
        ({"add_bos": 1}, "add_bos: 1 is not what"),
        ({"surprise": 1}, "surprise: 1 is not what"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, changes, message):
    with pytest.raises(ModelFailed, match=rf"generation\.json: {message}"):
        read_generation_defaults(written(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]"])
def test_what_is_no_object_is_refused(tmp_path, content):
    (tmp_path / "generation.json").write_bytes(content)
    with pytest.raises(ModelFailed, match=r"generation\.json: "):
        read_generation_defaults(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFailed, match=r"generation\.json"):
        read_generation_defaults(tmp_path)
