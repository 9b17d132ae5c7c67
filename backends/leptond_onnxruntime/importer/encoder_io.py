"""The contract between an encoder's graph on disk and the session that runs it: names and facts.

One graph, with the names that exports of other tools have. B rows of up to T tokens:

    input_ids          int64 [B, T]     tokens of each row, first ones first; any in padding
    attention_mask     int64 [B, T]     1 for a token, 0 for padding behind the last one
    token_type_ids     int64 [B, T]     absent when the graph does not take it
    last_hidden_state  float32 [B, T, hidden_size]; what is in padding is finite

A graph that was made elsewhere may call its output otherwise, and may end at pooled embeddings,
float32 [B, hidden_size]: `EncoderSpec` says so. What follows is `leptond.backend.heads`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leptond_onnxruntime.importer.graph_io import INPUT_IDS, Precision
from leptond_onnxruntime.importer.spec_file import read_spec, write_spec

__all__ = [
    "ATTENTION_MASK",
    "ENCODER_FILE",
    "ENCODER_SPEC_FILE",
    "INPUT_IDS",
    "LAST_HIDDEN_STATE",
    "TOKEN_TYPE_IDS",
    "EncoderSpec",
]

ATTENTION_MASK = "attention_mask"
TOKEN_TYPE_IDS = "token_type_ids"  # noqa: S105 - the name of an input
LAST_HIDDEN_STATE = "last_hidden_state"

ENCODER_FILE = "encoder.onnx"
ENCODER_SPEC_FILE = "encoder_graph.json"

_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What a session must know of the graph; `encoder_graph.json` beside it.

    Attributes:
        hidden_size: values of the output per token, or per row when it is pooled.
        num_heads, ffn_size: of the widest layer; what memory is estimated from.
        max_positions: longest row.
        num_token_types: token types that a row may name; 0 when the graph does not take them.
        output: name of the output.
        is_pooled: whether the output has a line per row, not per token.
        cpu_model, instruction_sets: as in `GraphSpec`.
    """

    precision: Precision
    family: str
    vocab_size: int
    hidden_size: int
    num_heads: int
    ffn_size: int
    max_positions: int
    num_token_types: int
    output: str = LAST_HIDDEN_STATE
    is_pooled: bool = False
    cpu_model: str = ""
    instruction_sets: tuple[str, ...] = ()

    def write(self, directory: Path) -> None:
        """Write the file into `directory`."""
        write_spec(self, directory / ENCODER_SPEC_FILE, _FORMAT_VERSION)

    @classmethod
    def read(cls, directory: Path) -> EncoderSpec:
        """Read the file in `directory`.

        Raises:
            ModelFailed: the file is missing, damaged, or of another format version.
        """
        return read_spec(cls, directory / ENCODER_SPEC_FILE, _FORMAT_VERSION)
