"""Facts of a model's architecture, in one vocabulary for every source format.

Readers (`gguf_llama`, `hf_llama`, `hf_encoder`, `hf_t5`, `hf_marian`) fill these values; plug-ins
build their own format from them. A fact that a reader cannot express here is refused by the
reader; a fact that a plug-in cannot build is refused by the plug-in. Neither is ever ignored.
The tensors that go with each are in `leptond.checkpoint.tensors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Activation",
    "Architecture",
    "DecoderArchitecture",
    "EncoderArchitecture",
    "RelativeBias",
    "RotaryEmbedding",
    "Seq2SeqArchitecture",
]


class Activation(StrEnum):
    """Activation of a feed-forward block."""

    RELU = "relu"
    GELU = "gelu"  # exact: x Φ(x)
    GELU_TANH = "gelu_tanh"  # 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))
    SILU = "silu"


@dataclass(frozen=True, slots=True)
class RotaryEmbedding:
    """Rotary position embedding of the half-split kind: element `j` pairs with `j + dim / 2`.

    The angle of position `p` and pair `j` is
    `p / linear_factor * theta ** (-2 j / dim) / frequency_factors[j]`.

    Attributes:
        theta: base of the frequencies.
        dim: elements of each head that are rotated, the first ones; even, at most `head_dim`.
        linear_factor: positions are divided by it (position interpolation); 1.0 for none.
        frequency_factors: `dim / 2` divisors (Llama 3.1's long-context factors), or None.
    """

    theta: float
    dim: int
    linear_factor: float = 1.0
    frequency_factors: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class DecoderArchitecture:
    """A pre-norm decoder with RMSNorm, grouped-query attention and a gated SiLU feed-forward.

    Attributes:
        family: name of the source's architecture, for messages ("llama").
        max_positions: context length in tokens.
        norm_epsilon: added to the mean square inside RMSNorm.
        attention_scale: factor on the query-key products.
        sliding_window: each token sees this many tokens, itself included; None for all.
        has_tied_embedding: the output projection is the embedding matrix.
        has_attention_bias: the q, k and v projections carry a bias.
        has_attention_output_bias: the attention's output projection carries one.
        has_ffn_bias: the gate, up and down projections carry one.
        has_qk_norm: queries and keys are normalised by head before they are rotated.
    """

    family: str
    vocab_size: int
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    max_positions: int
    norm_epsilon: float
    rotary: RotaryEmbedding
    attention_scale: float
    sliding_window: int | None = None
    has_tied_embedding: bool = False
    has_attention_bias: bool = False
    has_attention_output_bias: bool = False
    has_ffn_bias: bool = False
    has_qk_norm: bool = False


@dataclass(frozen=True, slots=True)
class EncoderArchitecture:
    """A post-norm encoder with LayerNorm, biases everywhere and a learned position table (BERT).

    `x = LayerNorm(embedding + position + token type)`; each layer is
    `x = LayerNorm(x + attention(x))`, `x = LayerNorm(x + down(activation(up(x))))`. Attention is
    full, its scale `head_dim ** -0.5`.

    Attributes:
        family: `model_type` of the source ("bert", "distilbert", "roberta", "xlm-roberta").
        max_positions: rows of the position table, so the longest row in tokens. Row 0 belongs
            to a row's first token: the offset that RoBERTa's tables have is cut off already.
        num_token_types: rows of the token type table; 0 when there is none.
        norm_epsilon: added to the variance inside LayerNorm.
    """

    family: str
    vocab_size: int
    num_layers: int
    hidden_size: int
    num_heads: int
    ffn_size: int
    max_positions: int
    num_token_types: int
    norm_epsilon: float
    activation: Activation


@dataclass(frozen=True, slots=True)
class RelativeBias:
    """T5's relative position bias, added to the attention's scores; one table per side.

    The bucket of a distance `d = key position - query position`: on the encoder's side half of
    the buckets is for `d > 0`, with `n = |d|`; on the decoder's side `n = max(-d, 0)` and all
    buckets serve. Of the buckets of a side the first half is `n` itself, the rest is
    logarithmic up to `max_distance`, the last one for all beyond.
    """

    num_buckets: int
    max_distance: int


@dataclass(frozen=True, slots=True)
class Seq2SeqArchitecture:
    """An encoder and a decoder with cross-attention: T5 and Marian.

    Both sides take `embedding_scale * embedding.weight[token] (+ position_embedding.weight[p])`.
    Logits are `output_scale * hidden @ head.T (+ head.bias)`, the head being the embedding when
    it is tied.

    Attributes:
        family: `model_type` of the source ("t5", "marian").
        num_encoder_heads, num_decoder_heads: heads of `head_dim` elements each.
        encoder_ffn_size, decoder_ffn_size: width of the feed-forward blocks.
        is_pre_norm: norms come before each block, and once more after the last layer; else
            after each block and its residual.
        has_rms_norm: RMSNorm without a bias; else LayerNorm with one.
        norm_epsilon: added to the mean square or the variance inside the norm.
        activation: of the feed-forward blocks.
        has_gated_ffn: `down(activation(gate(x)) * up(x))`; else `down(activation(up(x)))`.
        has_bias: every projection of attention and feed-forward carries a bias.
        attention_scale: factor on the query-key products (T5: 1).
        relative_bias: T5's positions, or None.
        max_positions: rows of the table of sinusoidal positions; None when there is no table.
        has_tied_embedding: the output projection is the embedding matrix.
        has_output_bias: `head.bias` is added to the logits.
        decoder_start_token_id: first input of the decoder, never part of an answer.
        eos_token_id: ends an answer.
        pad_token_id: fills batches.
    """

    family: str
    vocab_size: int
    num_encoder_layers: int
    num_decoder_layers: int
    hidden_size: int
    num_encoder_heads: int
    num_decoder_heads: int
    head_dim: int
    encoder_ffn_size: int
    decoder_ffn_size: int
    is_pre_norm: bool
    has_rms_norm: bool
    norm_epsilon: float
    activation: Activation
    has_gated_ffn: bool
    has_bias: bool
    attention_scale: float
    relative_bias: RelativeBias | None
    max_positions: int | None
    embedding_scale: float
    output_scale: float
    has_tied_embedding: bool
    has_output_bias: bool
    decoder_start_token_id: int
    eos_token_id: int
    pad_token_id: int


Architecture = DecoderArchitecture | EncoderArchitecture | Seq2SeqArchitecture
