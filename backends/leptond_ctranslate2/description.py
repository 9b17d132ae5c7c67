"""`engine.json`: what the sessions need to know of a variant beside the engine's own files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path

from leptond.errors import ModelFailed
from leptond_ctranslate2.precision import Precision

__all__ = ["DESCRIPTION_FILE", "WEIGHTS_FILE", "EngineDescription", "ModelKind", "ModelSizes"]

DESCRIPTION_FILE = "engine.json"
WEIGHTS_FILE = "model.bin"
_FORMAT = 1


class ModelKind(StrEnum):
    """Which of the engine's classes runs it."""

    ENCODER = "encoder"
    TRANSLATOR = "translator"
    GENERATOR = "generator"


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """What memory is estimated from.

    Attributes:
        num_layers: of the encoder, or of the decoder where there is one.
        kv_size: elements of one token's keys in one layer; 0 where nothing is decoded.
        ffn_size: the widest feed-forward block.
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    kv_size: int
    ffn_size: int


@dataclass(frozen=True, slots=True)
class EngineDescription:
    """One variant.

    Attributes:
        vocab_size: token ids of rows are below it.
        max_positions: longest row in tokens; of a generator, prompt and answer together.
        max_answer_tokens: longest answer of a translator; 0 for others.
        num_token_types: token types that a row may name; 0 when the model has none.
        stop_token_ids: end an answer unless a row says otherwise; empty for encoders.
        suppressed_token_ids: never part of an answer.
        int8_limit: largest magnitude of an int8 weight; 0 when there are none.
        cpu_model, instruction_sets: where it was written.
    """

    kind: ModelKind
    precision: Precision
    family: str
    vocab_size: int
    max_positions: int
    sizes: ModelSizes
    max_answer_tokens: int = 0
    num_token_types: int = 0
    stop_token_ids: tuple[int, ...] = ()
    suppressed_token_ids: tuple[int, ...] = ()
    int8_limit: int = 0
    cpu_model: str = ""
    instruction_sets: tuple[str, ...] = ()

    def write(self, directory: Path) -> None:
        """Write it into the variant's directory."""
        values = {"format": _FORMAT, **asdict(self)}
        (directory / DESCRIPTION_FILE).write_text(
            json.dumps(values, indent=2) + "\n", encoding="utf-8"
        )

    @classmethod
    def read(cls, directory: Path) -> EngineDescription:
        """Read it back.

        Raises:
            ModelFailed: it is not there, or not ours.
        """
        path = directory / DESCRIPTION_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelFailed(f"{path} cannot be read: {error}") from error
        if not isinstance(values, dict) or values.pop("format", None) != _FORMAT:
            raise ModelFailed(f"{path} is not of format {_FORMAT}: import the model again")
        if unknown := sorted(set(values) - {field.name for field in fields(cls)}):
            raise ModelFailed(f"{path} has unknown fields: {', '.join(unknown)}")
        try:
            return cls(
                **{
                    **values,
                    "kind": ModelKind(values["kind"]),
                    "precision": Precision(values["precision"]),
                    "sizes": ModelSizes(**values["sizes"]),
                    **{name: tuple(values[name]) for name in _SEQUENCES if name in values},
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFailed(f"{path} is damaged: {error}") from error


_SEQUENCES = ("stop_token_ids", "suppressed_token_ids", "instruction_sets")
