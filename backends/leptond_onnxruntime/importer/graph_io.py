"""The contract between the graphs on disk and the session that runs them: names and facts.

A decoder is two graphs that share one weight file. With T new tokens of all rows of a step packed
into one vector, B rows (slots) and S the most new tokens of one row:

Body (`body.onnx`):

    input_ids      int64 [T]     new tokens, row after row
    grid           int64 [B, S]  position in [0, T) of row b's s-th new token; any in padding
    valid          int64 [T]     b * S + s of each new token, in the order of `input_ids`
    query_seqlens  int32 [B]     new tokens per row; 0 for a hole
    seqlens_k      int32 [B]     cached plus new tokens per row, minus 1, at least 0
    total          int32 []      the largest of cached plus new tokens, at least S
    logit_rows     int64 [R]     positions in [0, T) whose logits are wanted
    past_key_{l}, past_value_{l}        kv_dtype [B, num_kv_heads, max_len, head_dim]
    present_key_{l}, present_value_{l}  the same; bound to the memory of the past, in place
    hidden         hidden_dtype [R, hidden_size]  output: normalised hidden rows for the head

Head (`head.onnx`), over R rows. `repetition` and `bias` are `[1, 1]` holding 1.0 and 0.0 when no
row has any; nothing is then computed for them. A dimension marked `|1` may be 1:

    hidden               hidden_dtype [R, hidden_size]
    repetition           float32 [R|1, vocab_size|1]  divides positive logits, multiplies negative
                                                      ones
    bias                 float32 [R|1, vocab_size|1]  added after it; -inf masks a token
    temperature          float32 [R|1, 1]             divides last; > 0, 1.0 for none
    logits               float32 [R, vocab_size]      output: raw, before the three
    raw_log_normalizer   float32 [R]                  output: logsumexp of the raw logits
    candidate_logits     float32 [R, num_candidates]  output: largest processed logits, sorted
    candidate_ids        int64 [R, num_candidates]    output: their token ids
    log_normalizer       float32 [R]                  output: logsumexp of the processed logits
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leptond_onnxruntime.importer.spec_file import Precision, read_spec, write_spec

__all__ = [
    "BIAS",
    "BODY_FILE",
    "CANDIDATE_IDS",
    "CANDIDATE_LOGITS",
    "GRID",
    "HEAD_FILE",
    "HIDDEN",
    "INPUT_IDS",
    "LOGITS",
    "LOGIT_ROWS",
    "LOG_NORMALIZER",
    "MAX_CANDIDATES",
    "QUERY_SEQLENS",
    "RAW_LOG_NORMALIZER",
    "REPETITION",
    "SEQLENS_K",
    "SPEC_FILE",
    "TEMPERATURE",
    "TOTAL",
    "VALID",
    "WEIGHTS_FILE",
    "GraphSpec",
    "Precision",
    "past_key",
    "past_value",
    "present_key",
    "present_value",
]

INPUT_IDS = "input_ids"
GRID = "grid"
VALID = "valid"
QUERY_SEQLENS = "query_seqlens"
SEQLENS_K = "seqlens_k"
TOTAL = "total"
LOGIT_ROWS = "logit_rows"
HIDDEN = "hidden"

REPETITION = "repetition"
BIAS = "bias"
TEMPERATURE = "temperature"
LOGITS = "logits"
RAW_LOG_NORMALIZER = "raw_log_normalizer"
CANDIDATE_LOGITS = "candidate_logits"
CANDIDATE_IDS = "candidate_ids"
LOG_NORMALIZER = "log_normalizer"

BODY_FILE = "body.onnx"
HEAD_FILE = "head.onnx"
WEIGHTS_FILE = "weights.bin"
SPEC_FILE = "graph.json"

MAX_CANDIDATES = 64
_FORMAT_VERSION = 1


def past_key(layer: int) -> str:
    """Name of the body's input with the cached keys of `layer`."""
    return f"past_key_{layer}"


def past_value(layer: int) -> str:
    """Name of the body's input with the cached values of `layer`."""
    return f"past_value_{layer}"


def present_key(layer: int) -> str:
    """Name of the body's output with the keys of `layer`."""
    return f"present_key_{layer}"


def present_value(layer: int) -> str:
    """Name of the body's output with the values of `layer`."""
    return f"present_value_{layer}"


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """What a session must know of the two graphs; `graph.json` beside them.

    Attributes:
        kv_dtype: numpy name of the cache's element type.
        hidden_dtype: numpy name of the element type between body and head.
        num_candidates: candidates that the head returns, at most `MAX_CANDIDATES`.
        cpu_model: processor on which the variant was written; "" when unknown.
        instruction_sets: that processor's instruction sets that matter to kernels, sorted.
    """

    precision: Precision
    vocab_size: int
    num_layers: int
    hidden_size: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    kv_dtype: str
    hidden_dtype: str
    num_candidates: int
    cpu_model: str = ""
    instruction_sets: tuple[str, ...] = ()

    def write(self, directory: Path) -> None:
        """Write the file into `directory`."""
        write_spec(self, directory / SPEC_FILE, _FORMAT_VERSION)

    @classmethod
    def read(cls, directory: Path) -> GraphSpec:
        """Read the file in `directory`.

        Raises:
            ModelFailed: the file is missing, damaged, or of another format version.
        """
        return read_spec(cls, directory / SPEC_FILE, _FORMAT_VERSION)
