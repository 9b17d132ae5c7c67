"""Every architecture fact that the importer takes, computed by the engine and in plain numpy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ctranslate2
import numpy as np
import pytest

from leptond.checkpoint import (
    Activation,
    DecoderArchitecture,
    DecoderCheckpoint,
    EncoderArchitecture,
    EncoderCheckpoint,
    EncoderDefaults,
    GenerationDefaults,
    HeadParts,
    RelativeBias,
    RotaryEmbedding,
    Seq2SeqArchitecture,
    Seq2SeqCheckpoint,
    Seq2SeqDefaults,
    TextAssets,
    expected_shapes,
)
from leptond.types import Task
from leptond_ctranslate2.importer import write_model
from leptond_ctranslate2.precision import Precision
from tests.fixtures.tiny_models.reference import (
    decoder_logits,
    encoder_hidden,
    log_softmax,
    target_logits,
)

VOCAB_SIZE = 40
IDS = [3, 17, 5, 39, 8, 8, 21, 30, 2, 11, 0, 25]
TOLERANCE = 2e-4

DECODER = DecoderArchitecture(
    family="tiny",
    vocab_size=VOCAB_SIZE,
    num_layers=2,
    hidden_size=32,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    ffn_size=48,
    max_positions=64,
    norm_epsilon=1e-5,
    rotary=RotaryEmbedding(10000.0, 8),
    attention_scale=8**-0.5,
)
ENCODER = EncoderArchitecture(
    family="tiny",
    vocab_size=VOCAB_SIZE,
    num_layers=2,
    hidden_size=32,
    num_heads=4,
    ffn_size=48,
    max_positions=20,
    num_token_types=2,
    norm_epsilon=1e-12,
    activation=Activation.GELU,
)
SEQ2SEQ = Seq2SeqArchitecture(
    family="tiny",
    vocab_size=VOCAB_SIZE,
    num_encoder_layers=2,
    num_decoder_layers=2,
    hidden_size=32,
    num_encoder_heads=4,
    num_decoder_heads=4,
    head_dim=8,
    encoder_ffn_size=48,
    decoder_ffn_size=40,
    is_pre_norm=True,
    has_rms_norm=False,
    norm_epsilon=1e-5,
    activation=Activation.RELU,
    has_gated_ffn=False,
    has_bias=True,
    attention_scale=8**-0.5,
    relative_bias=None,
    max_positions=32,
    embedding_scale=32**0.5,
    output_scale=1.0,
    has_tied_embedding=True,
    has_output_bias=False,
    decoder_start_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
T5 = replace(
    SEQ2SEQ,
    has_rms_norm=True,
    has_bias=False,
    attention_scale=1.0,
    relative_bias=RelativeBias(8, 20),
    max_positions=None,
    embedding_scale=1.0,
    norm_epsilon=1e-6,
)

TEXT = TextAssets(
    json.dumps({"model": {"vocab": {f"t{index}": index for index in range(VOCAB_SIZE)}}}),
    generation=GenerationDefaults(
        max_positions=64,
        add_bos=False,
        add_eos=False,
        bos_token_id=None,
        eos_token_id=2,
        stop_token_ids=(2,),
        bos_token="",
        eos_token="t2",
    ),
)
ENCODER_DEFAULTS = EncoderDefaults(
    architecture="tiny", max_tokens=20, num_special_single=0, dimensions=32, pooling="mean"
)
SEQ2SEQ_DEFAULTS = Seq2SeqDefaults(
    architecture="tiny",
    max_tokens=32,
    num_special_single=0,
    vocab_size=VOCAB_SIZE,
    decoder_start_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
    unknown_token_id=None,
    max_target_tokens=32,
)


class RandomTensors:
    """The tensors of an architecture, the same for the same name and shape."""

    def __init__(self, architecture):
        self.architecture = architecture
        self.path = Path("random")
        self._shapes = expected_shapes(architecture)
        self.text = TEXT
        if isinstance(architecture, EncoderArchitecture):
            self.text = replace(TEXT, generation=None, encoder=ENCODER_DEFAULTS)
        elif isinstance(architecture, Seq2SeqArchitecture):
            self.text = replace(TEXT, encoder=SEQ2SEQ_DEFAULTS)

    def tensor(self, name):
        shape = self._shapes[name]
        seed = sum(name.encode()) * 1000 + sum(shape)
        values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        if name.endswith("norm.weight"):
            return 1 + values / 5
        if len(shape) == 1:
            return values / 3
        return values * np.float32(1.5 / shape[-1] ** 0.5)


class RandomDecoder(RandomTensors, DecoderCheckpoint):
    """A decoder."""


class RandomSeq2Seq(RandomTensors, Seq2SeqCheckpoint):
    """A sequence-to-sequence model."""


class RandomEncoder(RandomTensors, EncoderCheckpoint):
    """An encoder without a head."""

    def head(self):
        return HeadParts(Task.EMBED, [{"op": "pool", "kind": "mean"}], {})


@pytest.fixture
def engine(tmp_path):
    """The engine's object over a checkpoint, as the importer writes it."""

    def opened(kind, checkpoint):
        write_model(checkpoint, tmp_path, Precision.FLOAT32, lambda stage, share: None)
        return kind(str(tmp_path), intra_threads=1)

    return opened


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"has_tied_embedding": True},
        {"has_attention_bias": True},
        {"has_attention_output_bias": True, "has_ffn_bias": True, "has_attention_bias": True},
        {"has_qk_norm": True},
        {"num_kv_heads": 4},
        {"num_kv_heads": 1},
        {"head_dim": 16, "rotary": RotaryEmbedding(10000.0, 16)},
        {"rotary": RotaryEmbedding(500000.0, 8)},
        {"rotary": RotaryEmbedding(10000.0, 4)},
        {"rotary": RotaryEmbedding(10000.0, 8, linear_factor=4.0)},
        {"rotary": RotaryEmbedding(10000.0, 8, frequency_factors=(1.0, 1.0, 3.0, 8.0))},
        {"rotary": RotaryEmbedding(10000.0, 8, 2.0, (1.0, 1.0, 3.0, 8.0))},
        {"attention_scale": 0.2},
        {"norm_epsilon": 0.1},
    ],
    ids=str,
)
def test_decoders(engine, changes):
    checkpoint = RandomDecoder(replace(DECODER, **changes))
    generator = engine(ctranslate2.Generator, checkpoint)
    found = np.array(generator.forward_batch([IDS]))[0]
    np.testing.assert_allclose(found, decoder_logits(checkpoint, IDS), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "changes",
    [
        *({"activation": activation} for activation in Activation),
        {"num_token_types": 0},
        {"num_token_types": 1},
        {"norm_epsilon": 0.1},
        {"num_heads": 2},
    ],
    ids=str,
)
def test_encoders(engine, changes):
    checkpoint = RandomEncoder(replace(ENCODER, **changes))
    encoder = engine(ctranslate2.Encoder, checkpoint)
    has_types = checkpoint.architecture.num_token_types > 1
    types = [0, 0, 1] * 4 if has_types else None
    output = encoder.forward_batch([IDS], token_type_ids=[types] if has_types else None)
    expected = encoder_hidden(checkpoint, IDS, types)
    found = np.array(output.last_hidden_state)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        (SEQ2SEQ, {}),
        (SEQ2SEQ, {"is_pre_norm": False}),
        (SEQ2SEQ, {"has_output_bias": True, "has_tied_embedding": False}),
        (SEQ2SEQ, {"activation": Activation.SILU, "embedding_scale": 1.0}),
        (SEQ2SEQ, {"num_decoder_heads": 2, "head_dim": 16, "num_encoder_heads": 2}),
        (SEQ2SEQ, {"num_encoder_layers": 1, "num_decoder_layers": 3}),
        (SEQ2SEQ, {"norm_epsilon": 0.1}),
        (T5, {}),
        (T5, {"has_gated_ffn": True, "activation": Activation.GELU_TANH}),
        (T5, {"has_tied_embedding": False, "output_scale": 1.0}),
        (T5, {"output_scale": 32**-0.5}),
        (T5, {"head_dim": 4}),
        (T5, {"head_dim": 16}),
        (T5, {"num_decoder_heads": 2}),
        (T5, {"relative_bias": RelativeBias(32, 128)}),
    ],
    ids=str,
)
def test_sequence_to_sequence_models(engine, base, changes):
    checkpoint = RandomSeq2Seq(replace(base, **changes))
    translator = engine(ctranslate2.Translator, checkpoint)
    target = [5, 9, 33, 12, 7, 20, 21, 22]
    logits = target_logits(checkpoint, IDS, target)
    expected = log_softmax(logits)[np.arange(len(target)), target]
    (result,) = translator.score_batch(
        [[f"t{token}" for token in IDS]], [[f"t{token}" for token in target]]
    )
    found = np.array(result.log_probs[: len(target)])
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
