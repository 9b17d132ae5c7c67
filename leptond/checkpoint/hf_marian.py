"""Reads translators of fairseq's kind: Marian (OPUS-MT), and M2M-100 with NLLB.

They share modules and their names. Marian normalises after each block and adds a bias to the
logits; M2M-100 normalises before. Positions are sinusoidal and computed here, the two in their
own ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.checkpoint.architecture import Seq2SeqArchitecture
from leptond.checkpoint.checkpoint import Seq2SeqCheckpoint
from leptond.checkpoint.hf_directory import HfDirectory, NamedTensors
from leptond.checkpoint.hf_encoder import read_activation
from leptond.checkpoint.hf_seq2seq_text import read_m2m_text, read_marian_text
from leptond.checkpoint.json_facts import JsonFacts
from leptond.checkpoint.tensors import expected_shapes

__all__ = ["TRANSLATOR_FAMILIES", "HfTranslatorCheckpoint"]


@dataclass(frozen=True, slots=True)
class _Family:
    """What differs between the two.

    Attributes:
        model_class: class that is supported.
        is_pre_norm: norms come before the blocks.
        activation: `activation_function` when config.json does not say it.
        scales_embedding: likewise `scale_embedding`.
    """

    model_class: str
    is_pre_norm: bool
    activation: str
    scales_embedding: bool


TRANSLATOR_FAMILIES: Mapping[str, _Family] = {
    "marian": _Family("MarianMTModel", False, "gelu", False),  # noqa: FBT003 - a table
    "m2m_100": _Family("M2M100ForConditionalGeneration", True, "relu", True),  # noqa: FBT003
}
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "add_final_layer_norm": (False,),
    "is_encoder_decoder": (True,),
    "normalize_before": (False,),
    "normalize_embedding": (False,),
    "share_encoder_decoder_embeddings": (True,),
    "static_position_embeddings": (True,),
    "tie_word_embeddings": (True,),
}
_EMBEDDINGS = (
    "model.shared.weight",
    "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "lm_head.weight",
)
_OUTPUT_BIAS = "final_logits_bias"
_MODULES = {
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.o": "self_attn.out_proj",
    "attention_norm": "self_attn_layer_norm",
    "cross_attention.q": "encoder_attn.q_proj",
    "cross_attention.k": "encoder_attn.k_proj",
    "cross_attention.v": "encoder_attn.v_proj",
    "cross_attention.o": "encoder_attn.out_proj",
    "cross_attention_norm": "encoder_attn_layer_norm",
    "ffn.up": "fc1",
    "ffn.down": "fc2",
    "ffn_norm": "final_layer_norm",
}
_POSITIONS = "position_embedding.weight"
# torch's default, which these models do not set.
_NORM_EPSILON = 1e-5


class HfTranslatorCheckpoint(Seq2SeqCheckpoint):
    """A directory whose `model_type` is one of `TRANSLATOR_FAMILIES`."""

    def __init__(self, directory: HfDirectory) -> None:
        self.path = directory.path
        config = directory.config
        family = TRANSLATOR_FAMILIES[directory.model_type]
        if directory.model_class not in (family.model_class, ""):
            raise config.refuse("architectures", f"{family.model_class} is supported")
        config.require_neutral(_NEUTRAL)
        self.architecture = _read_architecture(directory, family)
        a = self.architecture
        shapes = expected_shapes(a)
        shapes.pop(_POSITIONS)
        if a.has_output_bias:
            shapes["head.bias"] = (1, a.vocab_size)
        self._tensors = NamedTensors(
            directory.weights,
            shapes,
            {name: _sources(name) for name in shapes},
            lambda name: name.endswith((".embed_positions.weight", ".embed_positions.weights")),
        )
        read_text = read_marian_text if a.family == "marian" else read_m2m_text
        self.text = read_text(directory, a)

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """Return one tensor; the positions are computed."""
        if name == _POSITIONS:
            return self._positions()
        values = self._tensors.read(name)
        return values.ravel() if name == "head.bias" else values

    def _positions(self) -> npt.NDArray[np.float32]:
        """Return the sinusoidal table: sines in the first half of each row, cosines after.

        Frequencies are `10000 ** (-2 j / dim)` in Marian, and in M2M-100 those of fairseq,
        `10000 ** (-j / (dim / 2 - 1))` with rows that begin behind the padding's, at 2.
        """
        a = self.architecture
        half = a.hidden_size // 2
        rows, pairs = np.arange(a.max_positions or 0, dtype=np.float64), np.arange(half)
        if a.family == "marian":
            angles = np.outer(rows, 10_000.0 ** (-2 * pairs / a.hidden_size))
        else:
            angles = np.outer(rows + a.pad_token_id + 1, 10_000.0 ** (-pairs / max(half - 1, 1)))
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _read_architecture(directory: HfDirectory, family: _Family) -> Seq2SeqArchitecture:
    config = directory.config
    hidden_size, vocab_size = config.count("d_model"), config.count("vocab_size")
    if config.count("decoder_vocab_size", vocab_size) != vocab_size:
        raise config.refuse("decoder_vocab_size", "both sides must share one vocabulary")
    num_heads = _num_heads(config, hidden_size)
    is_scaled = config.boolean("scale_embedding", default=family.scales_embedding)
    return Seq2SeqArchitecture(
        family=directory.model_type,
        vocab_size=vocab_size,
        num_encoder_layers=directory.num_layers("encoder_layers"),
        num_decoder_layers=directory.num_layers("decoder_layers"),
        hidden_size=hidden_size,
        num_encoder_heads=num_heads,
        num_decoder_heads=num_heads,
        head_dim=hidden_size // num_heads,
        encoder_ffn_size=config.count("encoder_ffn_dim"),
        decoder_ffn_size=config.count("decoder_ffn_dim"),
        is_pre_norm=family.is_pre_norm,
        has_rms_norm=False,
        norm_epsilon=_NORM_EPSILON,
        activation=read_activation(config, "activation_function", family.activation),
        has_gated_ffn=False,
        has_bias=True,
        attention_scale=(hidden_size // num_heads) ** -0.5,
        relative_bias=None,
        max_positions=config.count("max_position_embeddings", 1024),
        embedding_scale=hidden_size**0.5 if is_scaled else 1.0,
        output_scale=1.0,
        has_tied_embedding=True,
        has_output_bias=_OUTPUT_BIAS in directory.weights,
        decoder_start_token_id=directory.token_id("decoder_start_token_id", vocab_size),
        eos_token_id=directory.token_id("eos_token_id", vocab_size),
        pad_token_id=directory.token_id("pad_token_id", vocab_size),
    )


def _num_heads(config: JsonFacts, hidden_size: int) -> int:
    num_heads = config.count("encoder_attention_heads")
    if config.count("decoder_attention_heads") != num_heads:
        raise config.refuse("decoder_attention_heads", "both sides must have as many heads")
    if hidden_size % (2 * num_heads):
        raise config.invalid("d_model", f"an even number for each of {num_heads} heads is needed")
    return num_heads


def _sources(name: str) -> tuple[str, ...]:
    """Return the stored names of the tensor of canonical `name`."""
    if name == "embedding.weight":
        return _EMBEDDINGS
    if name == "head.bias":
        return (_OUTPUT_BIAS,)
    side, rest = name.split(".", 1)
    if rest.startswith("norm."):
        return (f"model.{side}.layer_{rest}",)
    _, layer, module = rest.split(".", 2)
    module, kind = module.rsplit(".", 1)
    return (f"model.{side}.layers.{layer}.{_MODULES[module]}.{kind}",)
