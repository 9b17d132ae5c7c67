"""T5 and Marian as the engine's `TransformerSpec`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from ctranslate2.specs import transformer_spec

from leptond.checkpoint import Seq2SeqArchitecture, Seq2SeqCheckpoint
from leptond_ctranslate2.importer.layers import (
    ACTIVATIONS,
    set_attention,
    set_embedding,
    set_linear,
    set_norm,
)
from leptond_ctranslate2.importer.weights import WeightReader

__all__ = ["build_seq2seq", "has_start_row"]


def has_start_row(checkpoint: Seq2SeqCheckpoint, suppressed: Collection[int]) -> bool:
    """Whether the last token exists only to start the decoder, from an embedding of zeros.

    Marian has no start token; its converters to other formats append one ("<pad>"). The engine
    starts from zeros by itself, and without the token it cannot be an answer either.
    """
    a = checkpoint.architecture
    last = a.vocab_size - 1
    if a.decoder_start_token_id != last or last not in suppressed:
        return False
    return not checkpoint.tensor("embedding.weight")[last].any()


def build_seq2seq(architecture: Seq2SeqArchitecture, weights: WeightReader, num_tokens: int) -> Any:
    """Return the filled specification, without vocabulary and configuration.

    Of the embeddings `num_tokens` rows are kept; one less than there are when the last only
    starts the decoder.
    """
    a = architecture
    common: dict[str, Any] = {
        "pre_norm": a.is_pre_norm,
        "activation": ACTIVATIONS[a.activation],
        "relative_attention_bias": a.relative_bias is not None,
        "ffn_glu": a.has_gated_ffn,
        "rms_norm": a.has_rms_norm,
        "head_dim": a.head_dim,
    }
    encoder = transformer_spec.TransformerEncoderSpec(
        a.num_encoder_layers, a.num_encoder_heads, **common
    )
    decoder = transformer_spec.TransformerDecoderSpec(
        a.num_decoder_layers, a.num_decoder_heads, **common
    )
    embedding = weights.matrix("embedding.weight", num_rows=num_tokens)
    for side, embeddings in ((encoder, encoder.embeddings[0]), (decoder, decoder.embeddings)):
        set_embedding(embeddings, embedding)
        side.scale_embeddings = np.float32(a.embedding_scale)
        if a.max_positions is not None:
            side.position_encodings.encodings = weights.vector("position_embedding.weight")
    _set_side(encoder, "encoder", a, weights)
    _set_side(decoder, "decoder", a, weights)
    head = embedding
    if not a.has_tied_embedding:
        head = weights.matrix("head.weight", num_rows=num_tokens)
    set_embedding(decoder.projection, head)
    if a.has_output_bias:
        decoder.projection.bias = weights.vector("head.bias", num_rows=num_tokens)
    if a.output_scale != 1:
        decoder.scale_outputs = np.float32(a.output_scale)
    decoder.start_from_zero_embedding = num_tokens < a.vocab_size
    return transformer_spec.TransformerSpec(encoder, decoder)


def _set_side(side: Any, name: str, a: Seq2SeqArchitecture, weights: WeightReader) -> None:
    bias = None
    if a.relative_bias is not None:
        bias = weights.vector(f"{name}.relative_bias.weight")
    if a.is_pre_norm:
        set_norm(side.layer_norm, weights, f"{name}.norm")
    for index, layer in enumerate(side.layer):
        prefix = f"{name}.layers.{index}"
        attention = layer.self_attention
        _set_attention(attention, weights, f"{prefix}.attention", a)
        if bias is not None and a.relative_bias is not None:
            attention.relative_attention_bias = bias
            attention.relative_attention_max_distance = np.int32(a.relative_bias.max_distance)
        if name == "decoder":
            _set_attention(layer.attention, weights, f"{prefix}.cross_attention", a, is_cross=True)
        set_norm(layer.ffn.layer_norm, weights, f"{prefix}.ffn_norm")
        if a.has_gated_ffn:
            set_linear(layer.ffn.linear_0, weights, f"{prefix}.ffn.gate")
            set_linear(layer.ffn.linear_0_noact, weights, f"{prefix}.ffn.up")
        else:
            set_linear(layer.ffn.linear_0, weights, f"{prefix}.ffn.up")
        set_linear(layer.ffn.linear_1, weights, f"{prefix}.ffn.down")


def _set_attention(
    spec: Any,
    weights: WeightReader,
    name: str,
    a: Seq2SeqArchitecture,
    *,
    is_cross: bool = False,
) -> None:
    spec.queries_scale = np.float32(a.attention_scale)
    set_attention(spec, weights, name, is_cross=is_cross)
    set_norm(spec.layer_norm, weights, f"{name}_norm")
