"""Reads encoders of the BERT family: BERT, DistilBERT, RoBERTa and XLM-RoBERTa.

They share one arithmetic (`EncoderArchitecture`) and differ in the names of their keys and
tensors, which are tables here. What follows the last hidden state is read by `hf_head`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.checkpoint.architecture import Activation, EncoderArchitecture
from leptond.checkpoint.checkpoint import EncoderCheckpoint, HeadParts
from leptond.checkpoint.hf_directory import HfDirectory, NamedTensors
from leptond.checkpoint.hf_encoder_text import read_encoder_text
from leptond.checkpoint.hf_head import EncoderHead, read_head
from leptond.checkpoint.json_facts import JsonFacts
from leptond.checkpoint.sentence_transformers import SentenceTransformer
from leptond.checkpoint.tensors import expected_shapes

__all__ = ["ENCODER_FAMILIES", "HfEncoderCheckpoint", "read_activation"]

# By the names of transformers' own table; "gelu_fast" and "gelu_new" write the same formula.
_ACTIVATIONS: Mapping[str, Activation] = {
    "relu": Activation.RELU,
    "gelu": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "silu": Activation.SILU,
    "swish": Activation.SILU,
}


@dataclass(frozen=True, slots=True)
class _Family:
    """How one `model_type` writes what the architecture needs.

    Attributes:
        prefix: what stands before the encoder's tensors in a model with a head.
        keys: of config.json by our own names.
        modules: of the checkpoint by canonical names, without the layers' prefix.
        layer: prefix of a layer's modules.
        has_token_types: `type_vocab_size` says how many.
        has_padding_offset: positions begin behind the padding token's id.
        neutral: values of keys that change nothing.
    """

    prefix: str
    keys: Mapping[str, str]
    modules: Mapping[str, str]
    layer: str
    has_token_types: bool = True
    has_padding_offset: bool = False
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


_BERT_KEYS = {
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "ffn_size": "intermediate_size",
    "activation": "hidden_act",
    "max_positions": "max_position_embeddings",
    "norm_epsilon": "layer_norm_eps",
}
_BERT_MODULES = {
    "embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "token_type_embedding": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "attention.q": "attention.self.query",
    "attention.k": "attention.self.key",
    "attention.v": "attention.self.value",
    "attention.o": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn.up": "intermediate.dense",
    "ffn.down": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
_BERT_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "chunk_size_feed_forward": (0,),  # another order of the same sums
    "pruned_heads": ({},),
}
_ROBERTA = _Family(
    prefix="roberta.",
    keys=_BERT_KEYS,
    modules=_BERT_MODULES,
    layer="encoder.layer.",
    has_padding_offset=True,
    neutral=_BERT_NEUTRAL,
)
ENCODER_FAMILIES: Mapping[str, _Family] = {
    "bert": _Family("bert.", _BERT_KEYS, _BERT_MODULES, "encoder.layer.", neutral=_BERT_NEUTRAL),
    "distilbert": _Family(
        prefix="distilbert.",
        keys={
            "hidden_size": "dim",
            "num_layers": "n_layers",
            "num_heads": "n_heads",
            "ffn_size": "hidden_dim",
            "activation": "activation",
            "max_positions": "max_position_embeddings",
        },
        modules={
            "embedding": "embeddings.word_embeddings",
            "position_embedding": "embeddings.position_embeddings",
            "embedding_norm": "embeddings.LayerNorm",
            "attention.q": "attention.q_lin",
            "attention.k": "attention.k_lin",
            "attention.v": "attention.v_lin",
            "attention.o": "attention.out_lin",
            "attention_norm": "sa_layer_norm",
            "ffn.up": "ffn.lin1",
            "ffn.down": "ffn.lin2",
            "ffn_norm": "output_layer_norm",
        },
        layer="transformer.layer.",
        has_token_types=False,
        neutral={"pruned_heads": ({},), "chunk_size_feed_forward": (0,)},
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
# LayerNorm as TensorFlow named its parts, in checkpoints that came from there.
_OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
# transformers' default, and all that DistilBERT has: no key of its config is the epsilon.
_NORM_EPSILON = 1e-12


class HfEncoderCheckpoint(EncoderCheckpoint):
    """A directory whose `model_type` is one of `ENCODER_FAMILIES`.

    Args:
        directory: the encoder's files.
        modules: what sentence-transformers puts behind it, or None.
    """

    def __init__(self, directory: HfDirectory, modules: SentenceTransformer | None) -> None:
        self.path = directory.path
        family = ENCODER_FAMILIES[directory.model_type]
        directory.config.require_neutral(family.neutral)
        self._offset = _position_offset(directory.config, family)
        self.architecture = _read_architecture(directory, family, self._offset)
        prefix = _stored_prefix(directory, family)
        self._head: EncoderHead = read_head(
            directory, modules, self.architecture.hidden_size, prefix
        )
        shapes = expected_shapes(self.architecture)
        table = "position_embedding.weight"
        rows = self.architecture.max_positions + self._offset
        self._tensors = NamedTensors(
            directory.weights,
            {**shapes, table: (rows, self.architecture.hidden_size)},
            {name: _sources(family, prefix, name) for name in shapes},
            lambda name: self._head.owns(name) or _is_unused(name, prefix),
        )
        self.text = read_encoder_text(directory, modules, self.architecture, self._head)

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """Return one tensor; the position table begins with the first token's row."""
        values = self._tensors.read(name)
        return values[self._offset :] if name == "position_embedding.weight" else values

    def head(self) -> HeadParts:
        """Return the model's own pooling and head."""
        return self._head.parts()


def read_activation(facts: JsonFacts, key: str, default: str | None = None) -> Activation:
    """Return the activation that `key` names; an unknown one is refused."""
    activation = _ACTIVATIONS.get(facts.text(key, default))
    if activation is None:
        raise facts.refuse(key, f"{', '.join(_ACTIVATIONS)} are supported")
    return activation


def _position_offset(config: JsonFacts, family: _Family) -> int:
    """Rows of the position table before the first token's: those up to the padding token's id."""
    return config.integer("pad_token_id", 1) + 1 if family.has_padding_offset else 0


def _read_architecture(directory: HfDirectory, family: _Family, offset: int) -> EncoderArchitecture:
    config = directory.config
    keys = family.keys
    hidden_size, num_heads = config.count(keys["hidden_size"]), config.count(keys["num_heads"])
    if hidden_size % num_heads:
        raise config.invalid(keys["num_heads"], f"{hidden_size} does not divide by it")
    num_rows = config.count(keys["max_positions"], 512)
    if num_rows <= offset:
        raise config.invalid(keys["max_positions"], f"the first {offset} rows belong to padding")
    types = config.integer("type_vocab_size", 2) if family.has_token_types else 0
    epsilon = _NORM_EPSILON
    if "norm_epsilon" in keys:
        epsilon = config.number(keys["norm_epsilon"], _NORM_EPSILON)
    return EncoderArchitecture(
        family=config.text("model_type"),
        vocab_size=config.count("vocab_size"),
        num_layers=directory.num_layers(keys["num_layers"]),
        hidden_size=hidden_size,
        num_heads=num_heads,
        ffn_size=config.count(keys["ffn_size"]),
        max_positions=num_rows - offset,
        num_token_types=types,
        norm_epsilon=epsilon,
        activation=read_activation(config, keys["activation"], "gelu"),
    )


def _stored_prefix(directory: HfDirectory, family: _Family) -> str:
    """Models with a head keep the encoder under its name; a bare encoder has no prefix."""
    name = f"{family.prefix}{family.modules['embedding']}.weight"
    return family.prefix if name in directory.weights else ""


def _sources(family: _Family, prefix: str, name: str) -> Sequence[str]:
    """Return the stored names of the tensor of canonical `name`, the newest first."""
    if name.startswith("layers."):
        _, layer, rest = name.split(".", 2)
        module, kind = rest.rsplit(".", 1)
        source = f"{prefix}{family.layer}{layer}.{family.modules[module]}.{kind}"
    else:
        module, kind = name.rsplit(".", 1)
        source = f"{prefix}{family.modules[module]}.{kind}"
    names = [source]
    for new, old in _OLD_NAMES.items():
        if source.endswith(new):
            names.append(source.removesuffix(new) + old)
    return names


def _is_unused(name: str, prefix: str) -> bool:
    """Whether a tensor does not touch the hidden states.

    Counters of positions and token types, a pooler that no head reads, and the heads of
    pre-training: masked language model and next sentence.
    """
    return name in {
        f"{prefix}embeddings.position_ids",
        f"{prefix}embeddings.token_type_ids",
        f"{prefix}pooler.dense.weight",
        f"{prefix}pooler.dense.bias",
    } or name.startswith(
        ("cls.predictions.", "cls.seq_relationship.", "lm_head.", "vocab_transform.",
         "vocab_layer_norm.", "vocab_projector.")
    )  # fmt: skip
