"""Takes over a directory that is in the engine's format already.

The engine's files say nothing of a tokenizer, of how long a text may be, or of what follows an
encoder's hidden states. The tokenizer is given; beside it `tokenizer_config.json` and
`chat_template.jinja` are read when they are there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leptond.backend.heads import Head
from leptond.backend.processor import cpu_model, instruction_sets
from leptond.checkpoint import TextAssets
from leptond.errors import InvalidRequest, ModelFailed, UnsupportedCapability
from leptond.types import Task
from leptond_ctranslate2.description import WEIGHTS_FILE, EngineDescription, ModelKind
from leptond_ctranslate2.importer.converters import conversion_advice
from leptond_ctranslate2.importer.int8_range import largest_int8, reduce_int8
from leptond_ctranslate2.importer.model_file import ModelFile
from leptond_ctranslate2.importer.ready_facts import describe_model
from leptond_ctranslate2.importer.ready_text import ReadyTokenizer
from leptond_ctranslate2.processor import safe_int8_limit
from leptond_ctranslate2.vocabulary import find_vocabulary, read_vocabulary, unique_tokens

__all__ = ["ReadyModel", "import_directory"]

_CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class ReadyModel:
    """What was taken over; `text` is for the version's directory."""

    description: EngineDescription
    text: TextAssets


def import_directory(
    source: Path, tokenizer: Path, directory: Path, *, pooling: str = "mean"
) -> ReadyModel:
    """Copy a converted model into the empty `directory`, checked against its tokenizer.

    Args:
        source: holds `model.bin`, `config.json` and one vocabulary.
        tokenizer: its `tokenizer.json`.
        directory: of the variant.
        pooling: of an encoder: `mean`, `cls` or `last`.

    Raises:
        InvalidRequest: it is not in the engine's format, and then the message names the converter
            to run; or the tokenizer is not the model's.
        UnsupportedCapability: a kind of model, a type or vocabularies that are not served.
    """
    if not (source / WEIGHTS_FILE).is_file() or not (source / _CONFIG).is_file():
        raise InvalidRequest(conversion_advice(source))
    model = ModelFile(source / WEIGHTS_FILE)
    words = ReadyTokenizer(tokenizer)
    try:
        vocabulary = find_vocabulary(source)
        tokens = read_vocabulary(vocabulary)
    except ModelFailed as error:
        raise InvalidRequest(error.message) from error
    words.check(tokens, vocabulary)
    config = _read_config(source / _CONFIG)
    description = describe_model(model, config, words)
    text = words.assets(description, config, pooling)
    _write_json(directory / f"{vocabulary.stem}.json", unique_tokens(tokens))
    _write_config(directory / _CONFIG, config, words)
    shutil.copyfile(source / WEIGHTS_FILE, directory / WEIGHTS_FILE)
    if description.kind is ModelKind.ENCODER:
        Head(Task.EMBED, [{"op": "pool", "kind": pooling}], {}).save(directory)
    sets = instruction_sets()
    description = replace(
        description,
        int8_limit=_fit_int8(directory / WEIGHTS_FILE, safe_int8_limit(sets)),
        cpu_model=cpu_model(),
        instruction_sets=sets,
    )
    description.write(directory)
    return ReadyModel(description, text)


def _fit_int8(path: Path, limit: int) -> int:
    """Make the weights fit the processor; answer the largest that there is now."""
    model = ModelFile(path, is_writable=True)
    largest = largest_int8(model)
    if largest > limit:
        reduce_int8(model, largest, limit)
    return min(largest, limit)


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise InvalidRequest(f"{path} is no object")
    if "decoder_start_token" in config and config["decoder_start_token"] is None:
        raise UnsupportedCapability(
            f"{path}: decoder_start_token: a model whose every answer begins as its caller says"
        )
    return config


def _write_config(path: Path, config: Mapping[str, Any], words: ReadyTokenizer) -> None:
    """Write the engine's configuration, so that it adds no token that the tokenizer adds."""
    around = words.around_nothing
    adjusted = dict(config)
    if config.get("add_source_bos") and around[:1] == [config.get("bos_token")]:
        adjusted["add_source_bos"] = False
    if config.get("add_source_eos") and around[-1:] == [config.get("eos_token")]:
        adjusted["add_source_eos"] = False
    _write_json(path, adjusted)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
