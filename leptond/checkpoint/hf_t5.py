"""Reads T5: the first version (ReLU, tied output) and 1.1 (gated GELU, output of its own), mT5 too.

RMSNorm before each block, no biases, no factor on the attention's scores, and a relative position
bias that the first layer of each side computes for all. A tied output is scaled by
`hidden_size ** -0.5`; transformers ties the scale to `tie_word_embeddings`, and so does this.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from leptond.checkpoint.architecture import Activation, RelativeBias, Seq2SeqArchitecture
from leptond.checkpoint.checkpoint import Seq2SeqCheckpoint
from leptond.checkpoint.hf_directory import HfDirectory, NamedTensors
from leptond.checkpoint.hf_seq2seq_text import read_t5_text
from leptond.checkpoint.json_facts import JsonFacts
from leptond.checkpoint.tensors import expected_shapes
from leptond.errors import InvalidRequest

__all__ = ["HfT5Checkpoint"]

_CLASSES = ("T5ForConditionalGeneration", "MT5ForConditionalGeneration", "")
_FEED_FORWARDS: Mapping[str, tuple[Activation, bool]] = {
    "relu": (Activation.RELU, False),
    "gelu": (Activation.GELU, False),
    "gated-gelu": (Activation.GELU_TANH, True),  # "gelu_new" to transformers
    "gated-relu": (Activation.RELU, True),
    "gated-silu": (Activation.SILU, True),
}
_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_OUTPUT = "lm_head.weight"
_GLOBAL_TENSORS: Mapping[str, str] = {"head.weight": _OUTPUT} | {
    f"{side}.{ours}.weight": f"{side}.{theirs}.weight"
    for side in ("encoder", "decoder")
    for ours, theirs in {
        "norm": "final_layer_norm",
        "relative_bias": "block.0.layer.0.SelfAttention.relative_attention_bias",
    }.items()
}
# By side, the index of the sub-layer of each block.
_BLOCKS: Mapping[str, Mapping[str, str]] = {
    "encoder": {"attention": "layer.0", "ffn": "layer.1"},
    "decoder": {"attention": "layer.0", "cross_attention": "layer.1", "ffn": "layer.2"},
}
_MODULES = {"attention": "SelfAttention", "cross_attention": "EncDecAttention"}
# Stored by the first T5 checkpoints and read by no code.
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


class HfT5Checkpoint(Seq2SeqCheckpoint):
    """A directory whose `model_type` is `t5` or `mt5`."""

    def __init__(self, directory: HfDirectory) -> None:
        self.path = directory.path
        config = directory.config
        if directory.model_class not in _CLASSES:
            raise config.refuse("architectures", f"{_CLASSES[0]} is supported")
        config.require_neutral({"is_encoder_decoder": (True,)})
        self.architecture = _read_architecture(directory)
        shapes = expected_shapes(self.architecture)
        self._tensors = NamedTensors(
            directory.weights,
            shapes,
            {name: self._sources(name) for name in shapes},
            lambda name: name in (_UNUSED, _OUTPUT),
        )
        self.text = read_t5_text(directory, self.architecture)

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """Return one tensor, as it is stored."""
        return self._tensors.read(name)

    def _sources(self, name: str) -> tuple[str, ...]:
        """Return the stored names of the tensor of canonical `name`."""
        if name == "embedding.weight":
            return (*_EMBEDDINGS, _OUTPUT) if self.architecture.has_tied_embedding else _EMBEDDINGS
        if name in _GLOBAL_TENSORS:
            return (_GLOBAL_TENSORS[name],)
        side, rest = name.split(".", 1)
        _, layer, block, *part = rest.removesuffix(".weight").split(".")
        prefix = f"{side}.block.{layer}.{_BLOCKS[side][block.removesuffix('_norm')]}"
        if block.endswith("_norm"):
            return (f"{prefix}.layer_norm.weight",)
        if block == "ffn":
            return (f"{prefix}.DenseReluDense.{self._ffn_name(part[0])}.weight",)
        return (f"{prefix}.{_MODULES[block]}.{part[0]}.weight",)

    def _ffn_name(self, part: str) -> str:
        if not self.architecture.has_gated_ffn:
            return {"up": "wi", "down": "wo"}[part]
        return {"gate": "wi_0", "up": "wi_1", "down": "wo"}[part]


def _read_architecture(directory: HfDirectory) -> Seq2SeqArchitecture:
    config = directory.config
    feed_forward = _FEED_FORWARDS.get(config.text("feed_forward_proj", "relu"))
    if feed_forward is None:
        raise config.refuse("feed_forward_proj", f"{', '.join(_FEED_FORWARDS)} are supported")
    hidden_size, ffn_size = config.count("d_model"), config.count("d_ff")
    num_heads, num_layers = config.count("num_heads"), directory.num_layers("num_layers")
    vocab_size = config.count("vocab_size")
    is_tied, is_scaled = _read_output(directory, config)
    return Seq2SeqArchitecture(
        family=directory.model_type,
        vocab_size=vocab_size,
        num_encoder_layers=num_layers,
        num_decoder_layers=directory.num_layers("num_decoder_layers", num_layers),
        hidden_size=hidden_size,
        num_encoder_heads=num_heads,
        num_decoder_heads=num_heads,
        head_dim=config.count("d_kv"),
        encoder_ffn_size=ffn_size,
        decoder_ffn_size=ffn_size,
        is_pre_norm=True,
        has_rms_norm=True,
        norm_epsilon=config.number("layer_norm_epsilon", 1e-6),
        activation=feed_forward[0],
        has_gated_ffn=feed_forward[1],
        has_bias=False,
        attention_scale=1.0,
        relative_bias=RelativeBias(
            num_buckets=config.count("relative_attention_num_buckets", 32),
            max_distance=config.count("relative_attention_max_distance", 128),
        ),
        max_positions=None,
        embedding_scale=1.0,
        output_scale=hidden_size**-0.5 if is_scaled else 1.0,
        has_tied_embedding=is_tied,
        has_output_bias=False,
        decoder_start_token_id=directory.token_id("decoder_start_token_id", vocab_size, 0),
        eos_token_id=directory.token_id("eos_token_id", vocab_size, 1),
        pad_token_id=directory.token_id("pad_token_id", vocab_size, 0),
    )


def _read_output(directory: HfDirectory, config: JsonFacts) -> tuple[bool, bool]:
    """Say whether the output projection is the embedding, and whether it is scaled.

    A projection that is stored though it shall be tied must be the embedding: versions of
    transformers differ about which of the two counts.
    """
    is_scaled = config.boolean("tie_word_embeddings", default=True)
    is_scaled = config.boolean("scale_decoder_outputs", default=is_scaled)
    weights = directory.weights
    if _OUTPUT not in weights:
        return True, is_scaled
    if not is_scaled:
        return False, is_scaled
    embedding = next((name for name in _EMBEDDINGS if name in weights), _OUTPUT)
    if not np.array_equal(weights.read(_OUTPUT), weights.read(embedding)):
        raise InvalidRequest(
            f"{directory.path}: tensor '{_OUTPUT}' is not '{embedding}', and config.json says "
            "tie_word_embeddings"
        )
    return True, is_scaled
