"""Reads decoders of the Llama family from Hugging Face directories: Llama, Mistral, Qwen2, Qwen3.

Their q and k rows are in half-split rotary order already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from leptond.checkpoint.architecture import DecoderArchitecture, RotaryEmbedding
from leptond.checkpoint.checkpoint import DecoderCheckpoint
from leptond.checkpoint.hf_decoder_text import read_decoder_text
from leptond.checkpoint.hf_directory import HfDirectory, NamedTensors
from leptond.checkpoint.json_facts import JsonFacts
from leptond.checkpoint.tensors import expected_shapes

__all__ = ["DECODER_FAMILIES", "HfDecoderCheckpoint"]


@dataclass(frozen=True, slots=True)
class _Family:
    """What differs between the families.

    Attributes:
        model_class: class that is supported.
        has_qkv_bias: the q, k and v projections always carry a bias.
        has_qk_norm: queries and keys are normalised by head.
        sliding_window: `sliding_window` when config.json has no such key.
        window_switch: key that must be true for a sliding window to count; "" when it always does.
    """

    model_class: str
    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    sliding_window: int | None = None
    window_switch: str = ""


DECODER_FAMILIES: Mapping[str, _Family] = {
    "llama": _Family("LlamaForCausalLM"),
    "mistral": _Family("MistralForCausalLM", sliding_window=4096),
    "qwen2": _Family("Qwen2ForCausalLM", has_qkv_bias=True, window_switch="use_sliding_window"),
    "qwen3": _Family("Qwen3ForCausalLM", has_qk_norm=True, window_switch="use_sliding_window"),
}
_OUTPUT = "lm_head.weight"
# Far beyond any model's; frequencies are computed before the tensors show what is true.
_MAX_HEAD_DIM = 65_536
_GLOBAL_TENSORS = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": _OUTPUT,
}
_MODULES = {
    "attention_norm": "input_layernorm",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.o": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}


class HfDecoderCheckpoint(DecoderCheckpoint):
    """A directory whose `model_type` is one of `DECODER_FAMILIES`."""

    def __init__(self, directory: HfDirectory) -> None:
        self.path = directory.path
        config = directory.config
        family = DECODER_FAMILIES[directory.model_type]
        if directory.model_class != family.model_class:
            raise config.refuse("architectures", f"{family.model_class} is supported")
        config.require_neutral({"hidden_act": ("silu", "swish"), "is_encoder_decoder": (False,)})
        self.architecture = _read_architecture(directory, family)
        shapes = expected_shapes(self.architecture)
        # A tied output is often stored all the same; tables of rotary frequencies are derived.
        self._tensors = NamedTensors(
            directory.weights,
            shapes,
            {name: (_source(name),) for name in shapes},
            lambda name: name == _OUTPUT or name.endswith(".rotary_emb.inv_freq"),
        )
        self.text = read_decoder_text(directory, self.architecture)

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """Return one tensor, as it is stored."""
        return self._tensors.read(name)


def _source(name: str) -> str:
    """Return the stored name of the tensor of canonical `name`."""
    if name in _GLOBAL_TENSORS:
        return _GLOBAL_TENSORS[name]
    _, layer, rest = name.split(".", 2)
    module, kind = rest.rsplit(".", 1)
    return f"model.layers.{layer}.{_MODULES[module]}.{kind}"


def _read_architecture(directory: HfDirectory, family: _Family) -> DecoderArchitecture:
    config = directory.config
    hidden_size, num_heads = config.count("hidden_size"), config.count("num_attention_heads")
    num_kv_heads = config.count("num_key_value_heads", num_heads)
    if num_heads % num_kv_heads:
        raise config.invalid("num_key_value_heads", f"{num_heads} query heads do not divide by it")
    head_dim = config.count("head_dim", hidden_size // num_heads)
    has_biases = config.boolean("attention_bias", default=False)
    return DecoderArchitecture(
        family=directory.model_type,
        vocab_size=config.count("vocab_size"),
        num_layers=directory.num_layers("num_hidden_layers"),
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        ffn_size=config.count("intermediate_size"),
        max_positions=config.count("max_position_embeddings"),
        norm_epsilon=config.number("rms_norm_eps", 1e-6),
        rotary=_read_rotary(config, head_dim),
        attention_scale=head_dim**-0.5,
        sliding_window=_read_window(config, family),
        has_tied_embedding=config.boolean("tie_word_embeddings", default=False),
        has_attention_bias=family.has_qkv_bias or has_biases,
        has_attention_output_bias=has_biases,
        has_ffn_bias=config.boolean("mlp_bias", default=False),
        has_qk_norm=family.has_qk_norm,
    )


def _read_window(config: JsonFacts, family: _Family) -> int | None:
    """Return the sliding window of all layers; one of some layers only is refused."""
    if family.window_switch:
        config.require_neutral({family.window_switch: (False,)})
        return None
    layers = config.array("layer_types")
    if any(layer != layers[0] for layer in layers):
        raise config.refuse("layer_types", "all layers must be of one type")
    if "sliding_window" in config:
        return config.count("sliding_window")
    return None if "sliding_window" in config.values else family.sliding_window


def _read_rotary(config: JsonFacts, head_dim: int) -> RotaryEmbedding:
    """Read `rope_parameters`, or `rope_scaling` and `rope_theta` of older files."""
    key = "rope_parameters" if "rope_parameters" in config else "rope_scaling"
    rope = config.object(key)
    rope.require_neutral({"partial_rotary_factor": (1.0,)})
    config.require_neutral({"partial_rotary_factor": (1.0,)})
    theta = rope.number("rope_theta", config.number("rope_theta", 10_000.0))
    if theta <= 0:
        raise config.invalid("rope_theta", "a number above 0 is needed")
    if head_dim % 2 or head_dim > _MAX_HEAD_DIM:
        raise config.invalid("head_dim", f"an even number up to {_MAX_HEAD_DIM} is needed")
    kind_key = "rope_type" if "rope_type" in rope else "type"
    match rope.text(kind_key, "default"):
        case "default":
            return RotaryEmbedding(theta, head_dim)
        case "linear":
            return RotaryEmbedding(theta, head_dim, linear_factor=rope.number("factor"))
        case "llama3":
            return RotaryEmbedding(
                theta, head_dim, frequency_factors=_llama3_factors(rope, theta, head_dim)
            )
        case _:
            raise rope.refuse(kind_key, "'default', 'linear' and 'llama3' are supported")


def _llama3_factors(rope: JsonFacts, theta: float, head_dim: int) -> tuple[float, ...]:
    """Return the divisors of the frequencies in Llama 3.1's long-context scaling.

    Long waves are divided by `factor`, short ones are kept, and between the two borders the
    frequencies are blended. Source: `apply_scaling` of Meta's llama-models.
    """
    factor = rope.number("factor")
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    context = rope.count("original_max_position_embeddings")
    if high <= low:
        raise rope.invalid("high_freq_factor", f"more than low_freq_factor, {low}, is needed")
    factors = []
    for pair in range(head_dim // 2):
        waves = context * theta ** (-2 * pair / head_dim) / (2 * math.pi)
        share = min(max((waves - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - share) / factor + share))
    return tuple(factors)
