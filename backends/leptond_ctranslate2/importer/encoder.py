"""BERT-like encoders as the engine's `TransformerEncoderModelSpec`.

It ends at the last hidden state; what follows is `leptond.backend.heads`.
"""

from __future__ import annotations

from typing import Any

from ctranslate2.specs import common_spec, transformer_spec

from leptond.checkpoint import EncoderArchitecture
from leptond_ctranslate2.importer.layers import (
    ACTIVATIONS,
    set_attention,
    set_embedding,
    set_linear,
    set_norm,
)
from leptond_ctranslate2.importer.weights import WeightReader

__all__ = ["build_encoder"]


def build_encoder(architecture: EncoderArchitecture, weights: WeightReader) -> Any:
    """Return the filled specification, without vocabulary and configuration."""
    a = architecture
    encoder = transformer_spec.TransformerEncoderSpec(
        a.num_layers,
        a.num_heads,
        pre_norm=False,
        activation=ACTIVATIONS[a.activation],
        layernorm_embedding=True,
        num_source_embeddings=2 if a.num_token_types else 1,
        embeddings_merge=common_spec.EmbeddingsMerge.ADD,
    )
    encoder.scale_embeddings = False
    set_embedding(encoder.embeddings[0], weights.matrix("embedding.weight"))
    if a.num_token_types:
        set_embedding(encoder.embeddings[1], weights.matrix("token_type_embedding.weight"))
    encoder.position_encodings.encodings = weights.vector("position_embedding.weight")
    set_norm(encoder.layernorm_embedding, weights, "embedding_norm")
    for index, layer in enumerate(encoder.layer):
        name = f"layers.{index}"
        set_attention(layer.self_attention, weights, f"{name}.attention")
        set_norm(layer.self_attention.layer_norm, weights, f"{name}.attention_norm")
        set_linear(layer.ffn.linear_0, weights, f"{name}.ffn.up")
        set_linear(layer.ffn.linear_1, weights, f"{name}.ffn.down")
        set_norm(layer.ffn.layer_norm, weights, f"{name}.ffn_norm")
    return transformer_spec.TransformerEncoderModelSpec(encoder)
