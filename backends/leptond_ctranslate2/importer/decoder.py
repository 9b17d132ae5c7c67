"""Llama-like decoders as the engine's `TransformerDecoderModelSpec`."""

from __future__ import annotations

from typing import Any

import numpy as np
from ctranslate2.specs import attention_spec, common_spec, transformer_spec

from leptond.checkpoint import DecoderArchitecture, RotaryEmbedding
from leptond.errors import UnsupportedCapability
from leptond_ctranslate2.importer.layers import set_attention, set_embedding, set_linear, set_norm
from leptond_ctranslate2.importer.weights import WeightReader

__all__ = ["build_decoder", "max_exact_positions"]


def max_exact_positions(architecture: DecoderArchitecture) -> int:
    """Return the longest context that the engine computes as the source means it.

    Its sliding window differs from the source's once a prompt is longer than the window; up to
    that length there is nothing to slide.
    """
    window = architecture.sliding_window
    return min(architecture.max_positions, window or architecture.max_positions)


def build_decoder(architecture: DecoderArchitecture, weights: WeightReader) -> Any:
    """Return the filled specification, without vocabulary and configuration.

    Raises:
        UnsupportedCapability: frequency factors beside a 16-bit type, to which the engine
            converts them when it loads the model, and which it then does not read.
    """
    a = architecture
    if a.rotary.frequency_factors is not None and weights.precision.float_type != "float32":
        raise UnsupportedCapability(
            f"CTranslate2 does not take rotary frequency factors in {weights.precision}; "
            "float32 and int8 have them",
            field="precision",
        )
    decoder = transformer_spec.TransformerDecoderSpec(
        a.num_layers,
        a.num_heads,
        activation=common_spec.Activation.SWISH,
        pre_norm=True,
        with_encoder_attention=False,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=a.rotary.dim,
        rotary_interleave=False,
        rotary_base=a.rotary.theta,
        num_heads_kv=a.num_kv_heads if a.num_kv_heads != a.num_heads else None,
        head_dim=a.head_dim,
        qk_norm=a.has_qk_norm,
        **_rotary_scaling(a.rotary),
    )
    decoder.scale_embeddings = False
    embedding = weights.matrix("embedding.weight")
    set_embedding(decoder.embeddings, embedding)
    set_norm(decoder.layer_norm, weights, "norm")
    head = embedding if a.has_tied_embedding else weights.matrix("head.weight")
    set_embedding(decoder.projection, head)
    for index, layer in enumerate(decoder.layer):
        _set_layer(layer, weights, f"layers.{index}", a)
    return transformer_spec.TransformerDecoderModelSpec(decoder)


def _set_layer(layer: Any, weights: WeightReader, name: str, a: DecoderArchitecture) -> None:
    attention = layer.self_attention
    attention.queries_scale = np.float32(a.attention_scale)
    set_norm(attention.layer_norm, weights, f"{name}.attention_norm")
    set_attention(attention, weights, f"{name}.attention")
    if a.has_qk_norm:
        set_norm(attention.q_norm, weights, f"{name}.attention.q_norm")
        set_norm(attention.k_norm, weights, f"{name}.attention.k_norm")
    if a.rotary.frequency_factors is not None:
        factors = np.array(a.rotary.frequency_factors, np.float32) * a.rotary.linear_factor
        attention.rotary_scaling_long_factor = factors
        attention.rotary_scaling_short_factor = factors
    set_norm(layer.ffn.layer_norm, weights, f"{name}.ffn_norm")
    set_linear(layer.ffn.linear_0, weights, f"{name}.ffn.gate")
    set_linear(layer.ffn.linear_0_noact, weights, f"{name}.ffn.up")
    set_linear(layer.ffn.linear_1, weights, f"{name}.ffn.down")


def _rotary_scaling(rotary: RotaryEmbedding) -> dict[str, Any]:
    """Return the arguments of the engine's scaling of angles.

    Of its kinds one takes any divisor of each frequency; without `max_position_embeddings` it
    multiplies sines and cosines by nothing.
    """
    if rotary.frequency_factors is not None:
        return {"rotary_scaling_type": attention_spec.RotaryScalingType.Su}
    if rotary.linear_factor == 1:
        return {}
    return {
        "rotary_scaling_type": attention_spec.RotaryScalingType.Linear,
        "rotary_scaling_factor": rotary.linear_factor,
    }
