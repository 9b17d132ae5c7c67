"""Facts of a decoder's architecture, in one vocabulary for every source format.

Readers (`leptond.checkpoint.gguf_llama`, later ones for safetensors) fill these values; plug-ins
build their own format from them. A fact that a reader cannot express here is refused by the
reader; a fact that a plug-in cannot build is refused by the plug-in. Neither is ever ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DecoderArchitecture", "RotaryEmbedding"]


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
