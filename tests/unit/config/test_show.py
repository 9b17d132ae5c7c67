from __future__ import annotations

import tomllib

import pytest

from leptond.config import iter_rows, load_config, show_config
from leptond.config.layers import extra, sections

TEXT = """
[server]
listen = ["127.0.0.1:1", "unix:/run/\\u00e9"]
[models.per_model."tiny:int8"]
num_slots = 2
[telemetry]
headers = {authorization = "Bearer hush"}
sampler_ratio = 0.5
[backend.onnxruntime]
num_threads = 2
[backend."odd name"]
"odd key" = {a = [true, "x\\"y"]}
since = 2026-11-25
"""


@pytest.fixture
def loaded(tmp_path):
    path = tmp_path / "leptond.toml"
    path.write_text(TEXT)
    return load_config(path, {"HOME": "/h", "LEPTOND_LOG_LEVEL": "debug"}, {"server.grace_s": 1.5})


def test_every_setting_is_shown_with_its_origin(loaded):
    text = show_config(loaded)
    for section, model in sections():
        assert f"[{section}]" in text
        for key in model.model_fields:
            assert f"{key} " in text
    lines = text.splitlines()
    assert next(line for line in lines if line.startswith("grace_s")).endswith("# flag --grace")
    assert next(line for line in lines if line.startswith("level")).endswith(
        "# variable LEPTOND_LOG_LEVEL"
    )


def test_secrets_are_never_shown(loaded):
    assert "hush" not in show_config(loaded)
    assert 'headers = {authorization = "***"}' in show_config(loaded)
    assert "hush" not in str(list(iter_rows(loaded)))


def test_what_is_shown_can_be_used_again(loaded, tmp_path):
    path = tmp_path / "again.toml"
    path.write_text(show_config(loaded))
    again = load_config(path, {"HOME": "/h"})
    masked = loaded.config.telemetry.model_copy(update={"headers": {"authorization": "***"}})
    assert again.config == loaded.config.model_copy(update={"telemetry": masked})


def test_what_is_shown_is_toml_without_any_file():
    text = show_config(load_config(None, {"HOME": "/h"}))
    assert tomllib.loads(text)["models"]["stores"] == ["/h/.local/share/leptond"]
    assert "# sampler_ratio is not set" in text


def test_every_setting_says_whether_it_is_secret():
    for _, model in sections():
        for info in model.model_fields.values():
            assert set(extra(info)) == {"flag", "is_secret", "has_variable"}
            assert info.description
