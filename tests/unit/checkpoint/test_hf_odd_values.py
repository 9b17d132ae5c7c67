"""Whatever a value of a JSON file is, the directory is read or refused in one line, and soon."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from leptond.checkpoint import open_checkpoint
from leptond.errors import LeptondError
from tests.fixtures.tiny_models.make import TINY_MODELS, make_tiny_model

ODD_VALUES: tuple[Any, ...] = (
    -1, 0, 1, 10**30, 3.5, float("inf"), float("nan"), "x", True,
    [], [1], [[1]], ["x"], [None], {}, {"a": 1}, {"a": {"b": []}},
)  # fmt: skip
MORE_KEYS = (
    "auto_map", "bad_words_ids", "chat_template", "eos_token_id", "id2label", "layer_types",
    "length_penalty", "max_length", "model_max_length", "num_beams", "problem_type", "prompts",
    "rope_parameters", "sentence_transformers", "sliding_window", "suppress_tokens",
    "task_specific_params",
)  # fmt: skip
NUM_TRIES = 60


@pytest.mark.parametrize("name", TINY_MODELS)
def test_odd_values_are_read_or_refused(tmp_path, name):
    directory = make_tiny_model(name, tmp_path / "m")
    rng = random.Random(name)
    files = [path for path in sorted(directory.rglob("*.json")) if _holds_facts(path)]
    for _ in range(NUM_TRIES):
        path = rng.choice(files)
        original = path.read_text(encoding="utf-8")
        values = json.loads(original)
        key = rng.choice([*values, *MORE_KEYS])
        path.write_text(json.dumps({**values, key: rng.choice(ODD_VALUES)}))
        refusal = _refusal(directory)
        assert refusal is None or (str(directory) in refusal and "\n" not in refusal)
        path.write_text(original, encoding="utf-8")


def _holds_facts(path: Path) -> bool:
    return path.name not in ("tokenizer.json", "vocab.json", "modules.json")


def _refusal(directory: Path) -> str | None:
    try:
        open_checkpoint(directory)
    except LeptondError as error:
        return error.message
    return None
