"""Writes one variant: weights, configuration, vocabulary, description, and an encoder's head.

model.bin                      the engine's weights
config.json                    the engine's facts: epsilon of norms, names of special tokens
{shared_}vocabulary.json       the engine's strings by id
head.json, head.npz            of encoders: `leptond.backend.heads`
engine.json                    ours: `leptond_ctranslate2.description`
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leptond.backend.heads import Head
from leptond.backend.processor import cpu_model, instruction_sets
from leptond.checkpoint import (
    Checkpoint,
    DecoderCheckpoint,
    EncoderCheckpoint,
    Seq2SeqCheckpoint,
    Seq2SeqDefaults,
)
from leptond.errors import InvariantViolation
from leptond_ctranslate2.description import EngineDescription, ModelKind, ModelSizes
from leptond_ctranslate2.importer.decoder import build_decoder, max_exact_positions
from leptond_ctranslate2.importer.encoder import build_encoder
from leptond_ctranslate2.importer.seq2seq import build_seq2seq, has_start_row
from leptond_ctranslate2.importer.weights import WeightReader
from leptond_ctranslate2.precision import Precision
from leptond_ctranslate2.processor import safe_int8_limit
from leptond_ctranslate2.vocabulary import vocabulary_tokens

__all__ = ["write_model"]

Progress = Callable[[str, float], object]


@dataclass(frozen=True, slots=True)
class _Model:
    """What is saved, before it is.

    Attributes:
        epsilon: of every norm.
        tokens: the vocabulary, by id.
    """

    description: EngineDescription
    spec: Any
    epsilon: float
    tokens: Sequence[str]


def write_model(
    checkpoint: Checkpoint, directory: Path, precision: Precision, progress: Progress
) -> EngineDescription:
    """Write `checkpoint` into the empty `directory`; one tensor is in memory at a time.

    Raises:
        UnsupportedCapability: the architecture has a fact that the engine cannot express.
        OSError: the directory cannot be written.
    """
    done = _ByteProgress(progress)
    sets = instruction_sets()
    limit = safe_int8_limit(sets)
    weights = WeightReader(checkpoint, precision, limit, done.add)
    match checkpoint:
        case EncoderCheckpoint():
            head = checkpoint.head()
            Head(head.task, head.operations, head.arrays).save(directory)
            model = _encoder(checkpoint, weights)
        case Seq2SeqCheckpoint():
            model = _seq2seq(checkpoint, weights)
        case DecoderCheckpoint():
            model = _decoder(checkpoint, weights)
        case _:
            raise InvariantViolation(f"a checkpoint of class {type(checkpoint).__name__}")
    _save(model, directory, done)
    description = replace(
        model.description,
        precision=precision,
        int8_limit=limit if precision.has_int8_weights else 0,
        cpu_model=cpu_model(),
        instruction_sets=sets,
    )
    description.write(directory)
    return description


def _encoder(checkpoint: EncoderCheckpoint, weights: WeightReader) -> _Model:
    a = checkpoint.architecture
    description = EngineDescription(
        ModelKind.ENCODER,
        Precision.FLOAT32,
        a.family,
        a.vocab_size,
        min(a.max_positions, checkpoint.text.max_tokens),
        ModelSizes(a.num_layers, a.hidden_size, a.num_heads, 0, a.ffn_size),
        num_token_types=a.num_token_types,
    )
    spec = build_encoder(a, weights)
    tokens = _tokens(checkpoint, a.vocab_size)
    spec.register_vocabulary(tokens)
    return _Model(description, spec, a.norm_epsilon, tokens)


def _decoder(checkpoint: DecoderCheckpoint, weights: WeightReader) -> _Model:
    a = checkpoint.architecture
    generation = checkpoint.text.generation
    if generation is None:
        raise InvariantViolation("a decoder without generation defaults")
    description = EngineDescription(
        ModelKind.GENERATOR,
        Precision.FLOAT32,
        a.family,
        a.vocab_size,
        min(max_exact_positions(a), checkpoint.text.max_tokens),
        ModelSizes(
            a.num_layers, a.hidden_size, a.num_heads, a.num_kv_heads * a.head_dim, a.ffn_size
        ),
        stop_token_ids=generation.stop_token_ids,
    )
    spec = build_decoder(a, weights)
    tokens = _tokens(checkpoint, a.vocab_size)
    spec.register_vocabulary(tokens)
    spec.config.bos_token = tokens[generation.bos_token_id or 0]
    spec.config.eos_token = tokens[generation.eos_token_id or 0]
    return _Model(description, spec, a.norm_epsilon, tokens)


def _seq2seq(checkpoint: Seq2SeqCheckpoint, weights: WeightReader) -> _Model:
    a = checkpoint.architecture
    defaults = checkpoint.text.encoder
    if not isinstance(defaults, Seq2SeqDefaults):
        raise InvariantViolation("a sequence-to-sequence model without its defaults")
    num_tokens = a.vocab_size
    if has_start_row(checkpoint, defaults.suppressed_token_ids):
        num_tokens -= 1
    rows = a.max_positions or defaults.max_tokens
    description = EngineDescription(
        ModelKind.TRANSLATOR,
        Precision.FLOAT32,
        a.family,
        num_tokens,
        min(rows, defaults.max_tokens),
        ModelSizes(
            a.num_decoder_layers,
            a.hidden_size,
            a.num_decoder_heads,
            a.num_decoder_heads * a.head_dim,
            max(a.encoder_ffn_size, a.decoder_ffn_size),
        ),
        max_answer_tokens=min(
            a.max_positions or defaults.max_target_tokens, defaults.max_target_tokens
        ),
        stop_token_ids=(a.eos_token_id,),
        suppressed_token_ids=tuple(
            token for token in defaults.suppressed_token_ids if token < num_tokens
        ),
    )
    spec = build_seq2seq(a, weights, num_tokens)
    tokens = _tokens(checkpoint, num_tokens)
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.eos_token = spec.config.bos_token = tokens[a.eos_token_id]
    # Any token will do where the decoder starts from zeros.
    start = a.decoder_start_token_id if a.decoder_start_token_id < num_tokens else a.eos_token_id
    spec.config.decoder_start_token = tokens[start]
    return _Model(description, spec, a.norm_epsilon, tokens)


def _tokens(checkpoint: Checkpoint, size: int) -> list[str]:
    return vocabulary_tokens(json.loads(checkpoint.text.tokenizer_json), size)


def _save(model: _Model, directory: Path, done: _ByteProgress) -> None:
    spec = model.spec
    # Every row names tokens that are there, so that nothing is ever unknown.
    spec.config.unk_token = model.tokens[0]
    spec.config.layer_norm_epsilon = model.epsilon
    spec.validate()
    spec.optimize()  # aliases what is shared; conversions were made by the weights themselves
    done.num_bytes = sum(
        variable.num_bytes()
        for variable in spec.variables().values()
        if not isinstance(variable, str)
    )
    spec.save(str(directory))


class _ByteProgress:
    """Turns bytes written into a share of the file."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._num_done = 0
        self.num_bytes = 1

    def add(self, num_bytes: int) -> None:
        """Report another piece."""
        self._num_done += num_bytes
        self._progress("weights", min(1.0, self._num_done / self.num_bytes))
