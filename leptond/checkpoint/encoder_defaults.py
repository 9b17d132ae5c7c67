"""What the text layer and the services need to know of an encoder or a translator: `encoder.json`.

The importer writes the file into the version's directory; `leptond.text` and `leptond.models`
read it. Reading is strict: a field that is missing, unknown or of another type is an error, since
a model whose prompt or limit was lost would answer wrongly and never say so.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar

from leptond.errors import ModelFailed

__all__ = [
    "ENCODER_FILE",
    "EncoderDefaults",
    "LanguageStyle",
    "Seq2SeqDefaults",
    "read_encoder_defaults",
    "write_encoder_defaults",
]

ENCODER_FILE = "encoder.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _InputDefaults:
    """How a text becomes the encoder's input.

    Attributes:
        architecture: family of the model ("bert", "t5"), for messages.
        max_tokens: longest input in tokens, special tokens included.
        num_special_single: special tokens that a single text gets.
        truncation_side: which end a text loses when it is cut: "left" or "right".
        prompts: texts that are put in front of an input, by name.
        default_prompt: name of the one that is used when none is asked for, or None.
    """

    architecture: str
    max_tokens: int
    num_special_single: int
    truncation_side: str = "right"
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderDefaults(_InputDefaults):
    """An encoder that embeds or classifies.

    Attributes:
        dimensions: length of its embedding, or number of its labels.
        pooling: "mean", "cls" or "last": the pooling in its head.
        normalize: its author wants embeddings of length 1.
        labels: names by index; () when it does not classify.
        problem_type: "single_label", "multi_label" or "regression"; None when it does not
            classify.
        activation: turns logits into scores: "softmax", "sigmoid" or "identity".
        is_cross_encoder: it scores how well a pair of texts fits.
        has_token_types: it tells the two texts of a pair apart by token types.
    """

    kind: ClassVar[str] = "encoder"

    dimensions: int
    pooling: str
    normalize: bool = False
    labels: tuple[str, ...] = ()
    problem_type: str | None = None
    activation: str = "identity"
    is_cross_encoder: bool = False
    has_token_types: bool = False


class LanguageStyle(StrEnum):
    """How a translator is told its languages."""

    NONE = "none"  # it knows one pair, or a prompt says it
    TARGET_IN_SOURCE = "target_in_source"  # the target's token goes in front of the source
    SOURCE_AND_TARGET = "source_and_target"  # and the source's; the target's begins the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Seq2SeqDefaults(_InputDefaults):
    """A model with an encoder and a decoder.

    Attributes:
        vocab_size: rows of the embedding. A tokenizer may know pieces that the model lacks: an id
            of `vocab_size` or more stands for `unknown_token_id`.
        decoder_start_token_id: first input of the decoder, never part of an answer.
        eos_token_id: ends an answer.
        pad_token_id: fills batches.
        unknown_token_id: what no token can express; None when all can be.
        max_target_tokens: longest answer in tokens.
        suppressed_token_ids: never part of an answer.
        beam_size, length_penalty: what its author recommends.
        language_style: how it is told its languages.
        languages: token of each language by its code; {} unless `language_style` uses them.
        source_language, target_language: codes of the one pair that it knows, when it names it.
    """

    kind: ClassVar[str] = "seq2seq"

    vocab_size: int
    decoder_start_token_id: int
    eos_token_id: int
    pad_token_id: int
    unknown_token_id: int | None
    max_target_tokens: int
    suppressed_token_ids: tuple[int, ...] = ()
    beam_size: int = 1
    length_penalty: float = 1.0
    language_style: LanguageStyle = LanguageStyle.NONE
    languages: Mapping[str, str] = field(default_factory=dict)
    source_language: str | None = None
    target_language: str | None = None


_KINDS: Mapping[str, type[EncoderDefaults | Seq2SeqDefaults]] = {
    "encoder": EncoderDefaults,
    "seq2seq": Seq2SeqDefaults,
}
# By the text of the annotation, as `from __future__ import annotations` keeps it: JSON type,
# and the type of what it holds.
_TYPES: Mapping[str, tuple[tuple[type, ...], type | None]] = {
    "int": ((int,), None),
    "int | None": ((int, NoneType), None),
    "float": ((float,), None),
    "bool": ((bool,), None),
    "str": ((str,), None),
    "str | None": ((str, NoneType), None),
    "tuple[int, ...]": ((list,), int),
    "tuple[str, ...]": ((list,), str),
    "Mapping[str, str]": ((dict,), str),
    "LanguageStyle": ((str,), None),
}


def write_encoder_defaults(defaults: EncoderDefaults | Seq2SeqDefaults, directory: Path) -> None:
    """Write `directory/encoder.json`: every field, and the kind."""
    fields = {"kind": defaults.kind, **dataclasses.asdict(defaults)}
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    (directory / ENCODER_FILE).write_text(text + "\n", encoding="utf-8")


def read_encoder_defaults(directory: Path) -> EncoderDefaults | Seq2SeqDefaults:
    """Read `directory/encoder.json`.

    Raises:
        ModelFailed: it is missing, is no JSON object, or a field is missing, unknown or of the
            wrong type.
    """
    path = directory / ENCODER_FILE
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelFailed(f"{path}: {error}") from error
    if not isinstance(fields, dict):
        raise ModelFailed(f"{path}: an object is needed")
    kind = _KINDS.get(str(fields.pop("kind", None)))
    if kind is None:
        raise ModelFailed(f"{path}: kind: one of {', '.join(_KINDS)} is needed")
    types = {known.name: str(known.type) for known in dataclasses.fields(kind)}
    values = {}
    for name, value in fields.items():
        if name not in types:
            raise ModelFailed(f"{path}: {name}: not known")
        values[name] = _value(value, types[name], f"{path}: {name}")
    if missing := types.keys() - fields.keys():
        raise ModelFailed(f"{path}: {', '.join(sorted(missing))}: missing")
    return kind(**values)


def _value(value: Any, annotation: str, where: str) -> Any:
    types, inner = _TYPES[annotation]
    items = value.values() if isinstance(value, dict) else value if inner is not None else ()
    # `type` and not `isinstance`: a flag is no whole number.
    if type(value) not in types or any(type(item) is not inner for item in items):
        raise ModelFailed(f"{where}: {value!r} is not what this field holds")
    if annotation == "LanguageStyle":
        try:
            return LanguageStyle(value)
        except ValueError as error:
            raise ModelFailed(f"{where}: {error}") from error
    return tuple(value) if isinstance(value, list) else value
