"""Canonical names and shapes of tensors: what plug-ins ask a checkpoint for.

Matrices are `[out, in]` row-major; `{a|b}` stands for one name each.

Decoders (`DecoderArchitecture`):

    embedding.weight                                   [vocab_size, hidden_size]
    layers.{l}.attention_norm.weight                   [hidden_size]
    layers.{l}.attention.{q|k|v}.{weight|bias}         rows in half-split rotary order
    layers.{l}.attention.{q|k}_norm.weight             [head_dim]
    layers.{l}.attention.o.{weight|bias}
    layers.{l}.ffn_norm.weight                         [hidden_size]
    layers.{l}.ffn.{gate|up|down}.{weight|bias}
    norm.weight                                        [hidden_size]
    head.weight                                        [vocab_size, hidden_size]; absent if tied

Encoders (`EncoderArchitecture`); what follows is `EncoderCheckpoint.head()`:

    embedding.weight                                   [vocab_size, hidden_size]
    position_embedding.weight                          [max_positions, hidden_size]
    token_type_embedding.weight                        [num_token_types, hidden_size]; if any
    embedding_norm.{weight|bias}                       [hidden_size]
    layers.{l}.attention.{q|k|v|o}.{weight|bias}
    layers.{l}.attention_norm.{weight|bias}            after the attention and its residual
    layers.{l}.ffn.{up|down}.{weight|bias}
    layers.{l}.ffn_norm.{weight|bias}                  after the feed-forward and its residual

Sequence to sequence (`Seq2SeqArchitecture`); S is `encoder` or `decoder`, biases if `has_bias`,
those of norms unless `has_rms_norm`:

    embedding.weight                                   [vocab_size, hidden_size], both sides
    position_embedding.weight                          [max_positions, hidden_size], both sides
    S.relative_bias.weight                             [num_buckets, heads of the side]
    S.layers.{l}.attention_norm.{weight|bias}
    S.layers.{l}.attention.{q|k|v|o}.{weight|bias}
    decoder.layers.{l}.cross_attention_norm.{weight|bias}
    decoder.layers.{l}.cross_attention.{q|k|v|o}.{weight|bias}
    S.layers.{l}.ffn_norm.{weight|bias}
    S.layers.{l}.ffn.{gate|up|down}.{weight|bias}      gate if `has_gated_ffn`
    S.norm.{weight|bias}                               if `is_pre_norm`
    head.weight                                        [vocab_size, hidden_size]; absent if tied
    head.bias                                          [vocab_size]; if `has_output_bias`
"""

from __future__ import annotations

from leptond.checkpoint.architecture import (
    Architecture,
    DecoderArchitecture,
    EncoderArchitecture,
    Seq2SeqArchitecture,
)

__all__ = ["expected_shapes"]

Shapes = dict[str, tuple[int, ...]]


def expected_shapes(architecture: Architecture) -> Shapes:
    """Return every tensor that `architecture` needs, by canonical name, with its shape."""
    match architecture:
        case DecoderArchitecture():
            return _decoder(architecture)
        case EncoderArchitecture():
            return _encoder(architecture)
        case Seq2SeqArchitecture():
            return _seq2seq(architecture)


def _linear(name: str, num_outputs: int, num_inputs: int, *, has_bias: bool) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (num_outputs, num_inputs)}
    if has_bias:
        shapes[f"{name}.bias"] = (num_outputs,)
    return shapes


def _norm(name: str, size: int, *, has_bias: bool) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (size,)}
    if has_bias:
        shapes[f"{name}.bias"] = (size,)
    return shapes


def _decoder(a: DecoderArchitecture) -> Shapes:
    query, key = a.num_heads * a.head_dim, a.num_kv_heads * a.head_dim
    shapes: Shapes = {"embedding.weight": (a.vocab_size, a.hidden_size)}
    projections = (
        ("attention.q", query, a.hidden_size, a.has_attention_bias),
        ("attention.k", key, a.hidden_size, a.has_attention_bias),
        ("attention.v", key, a.hidden_size, a.has_attention_bias),
        ("attention.o", a.hidden_size, query, a.has_attention_output_bias),
        ("ffn.gate", a.ffn_size, a.hidden_size, a.has_ffn_bias),
        ("ffn.up", a.ffn_size, a.hidden_size, a.has_ffn_bias),
        ("ffn.down", a.hidden_size, a.ffn_size, a.has_ffn_bias),
    )
    for layer in range(a.num_layers):
        prefix = f"layers.{layer}."
        shapes[f"{prefix}attention_norm.weight"] = (a.hidden_size,)
        shapes[f"{prefix}ffn_norm.weight"] = (a.hidden_size,)
        if a.has_qk_norm:
            shapes[f"{prefix}attention.q_norm.weight"] = (a.head_dim,)
            shapes[f"{prefix}attention.k_norm.weight"] = (a.head_dim,)
        for name, num_outputs, num_inputs, has_bias in projections:
            shapes |= _linear(f"{prefix}{name}", num_outputs, num_inputs, has_bias=has_bias)
    shapes["norm.weight"] = (a.hidden_size,)
    if not a.has_tied_embedding:
        shapes["head.weight"] = (a.vocab_size, a.hidden_size)
    return shapes


def _encoder(a: EncoderArchitecture) -> Shapes:
    shapes: Shapes = {
        "embedding.weight": (a.vocab_size, a.hidden_size),
        "position_embedding.weight": (a.max_positions, a.hidden_size),
    }
    if a.num_token_types:
        shapes["token_type_embedding.weight"] = (a.num_token_types, a.hidden_size)
    shapes |= _norm("embedding_norm", a.hidden_size, has_bias=True)
    for layer in range(a.num_layers):
        prefix = f"layers.{layer}."
        for part in "qkvo":
            name = f"{prefix}attention.{part}"
            shapes |= _linear(name, a.hidden_size, a.hidden_size, has_bias=True)
        shapes |= _norm(f"{prefix}attention_norm", a.hidden_size, has_bias=True)
        shapes |= _linear(f"{prefix}ffn.up", a.ffn_size, a.hidden_size, has_bias=True)
        shapes |= _linear(f"{prefix}ffn.down", a.hidden_size, a.ffn_size, has_bias=True)
        shapes |= _norm(f"{prefix}ffn_norm", a.hidden_size, has_bias=True)
    return shapes


def _seq2seq(a: Seq2SeqArchitecture) -> Shapes:
    shapes: Shapes = {"embedding.weight": (a.vocab_size, a.hidden_size)}
    if a.max_positions is not None:
        shapes["position_embedding.weight"] = (a.max_positions, a.hidden_size)
    shapes |= _side(a, "encoder", a.num_encoder_layers, a.num_encoder_heads, a.encoder_ffn_size)
    shapes |= _side(a, "decoder", a.num_decoder_layers, a.num_decoder_heads, a.decoder_ffn_size)
    if not a.has_tied_embedding:
        shapes["head.weight"] = (a.vocab_size, a.hidden_size)
    if a.has_output_bias:
        shapes["head.bias"] = (a.vocab_size,)
    return shapes


def _side(
    a: Seq2SeqArchitecture, side: str, num_layers: int, num_heads: int, ffn_size: int
) -> Shapes:
    shapes: Shapes = {}
    width = num_heads * a.head_dim
    attentions = ("attention",) if side == "encoder" else ("attention", "cross_attention")
    has_norm_bias = not a.has_rms_norm
    if a.relative_bias is not None:
        shapes[f"{side}.relative_bias.weight"] = (a.relative_bias.num_buckets, num_heads)
    for layer in range(num_layers):
        prefix = f"{side}.layers.{layer}."
        for attention in attentions:
            name = f"{prefix}{attention}"
            shapes |= _norm(f"{name}_norm", a.hidden_size, has_bias=has_norm_bias)
            for part in "qkv":
                shapes |= _linear(f"{name}.{part}", width, a.hidden_size, has_bias=a.has_bias)
            shapes |= _linear(f"{name}.o", a.hidden_size, width, has_bias=a.has_bias)
        shapes |= _norm(f"{prefix}ffn_norm", a.hidden_size, has_bias=has_norm_bias)
        for part in ("gate", "up") if a.has_gated_ffn else ("up",):
            name = f"{prefix}ffn.{part}"
            shapes |= _linear(name, ffn_size, a.hidden_size, has_bias=a.has_bias)
        shapes |= _linear(f"{prefix}ffn.down", a.hidden_size, ffn_size, has_bias=a.has_bias)
    if a.is_pre_norm:
        shapes |= _norm(f"{side}.norm", a.hidden_size, has_bias=has_norm_bias)
    return shapes
