"""Reads GGUF files of the Llama architecture: Llama 2 and 3, Mistral, SmolLM and their kin.

GGUF keeps the rows of q and k in the order of interleaved rotary embeddings; they are put back
into half-split order here, so that importers know one order only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from leptond.checkpoint.architecture import DecoderArchitecture, RotaryEmbedding
from leptond.checkpoint.checkpoint import DecoderCheckpoint
from leptond.checkpoint.gguf_file import GgufFile
from leptond.checkpoint.gguf_metadata import GgufMetadata
from leptond.checkpoint.gguf_text import read_text_assets
from leptond.checkpoint.tensors import expected_shapes
from leptond.errors import InvalidRequest, UnsupportedCapability

__all__ = ["GgufLlamaCheckpoint"]

_GLOBAL_TENSORS = {
    "embedding.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "head.weight": "output.weight",
}
_LAYER_TENSORS = {
    "attention_norm": "attn_norm",
    "attention.q": "attn_q",
    "attention.k": "attn_k",
    "attention.v": "attn_v",
    "attention.o": "attn_output",
    "ffn_norm": "ffn_norm",
    "ffn.gate": "ffn_gate",
    "ffn.up": "ffn_up",
    "ffn.down": "ffn_down",
}
_FREQUENCY_FACTORS = "rope_freqs.weight"
# Tables of rotary frequencies that old converters stored; they follow from rope.freq_base.
_DERIVED_TENSORS = (".attn_rot_embd.weight", ".attn.rot_freqs", ".attn.rotary_emb.inv_freq")

_READ_KEYS = {
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.scale",
    "attention.sliding_window",
    "rope.freq_base",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
}
# Keys without effect on the result for a Llama model: how the file came to be.
_INFORMATIVE_KEYS = {
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "tensor_data_layout",
}
# Keys of features that are not built, with the values that switch the feature off.
_NEUTRAL_VALUES: dict[str, tuple[object, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "final_logit_softcapping": (0.0,),
    "logit_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "rope.scaling.attn_factor": (0.0, 1.0),
    "use_parallel_residual": (False,),
}


class GgufLlamaCheckpoint(DecoderCheckpoint):
    """A GGUF file whose `general.architecture` is `llama`."""

    def __init__(self, file: GgufFile) -> None:
        self.path = file.path
        self._file = file
        metadata = GgufMetadata(file.path, file.metadata)
        _refuse_unknown_keys(metadata)
        self.architecture = _read_architecture(file, metadata)
        self._sources = {name: _source(name) for name in expected_shapes(self.architecture)}
        self._check_tensors()
        self.text = read_text_assets(metadata, self.architecture)

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """Return one tensor; q and k come in half-split rotary order."""
        values = self._file.read(self._sources[name])
        heads = {
            "q": self.architecture.num_heads,
            "k": self.architecture.num_kv_heads,
        }.get(name.split(".")[-2])
        if heads is None:
            return values
        return _half_split_order(values, heads, self.architecture.rotary.dim)

    def _check_tensors(self) -> None:
        for name, shape in expected_shapes(self.architecture).items():
            source = self._sources[name]
            tensor = self._file.tensors.get(source)
            if tensor is None:
                raise InvalidRequest(f"{self.path}: tensor '{source}' is missing")
            if tensor.shape != shape:
                raise InvalidRequest(
                    f"{self.path}: tensor '{source}' has shape {tensor.shape}, "
                    f"the metadata asks for {shape}"
                )
        known = {*self._sources.values(), _FREQUENCY_FACTORS}
        for name in self._file.tensors:
            if name not in known and not name.endswith(_DERIVED_TENSORS):
                raise UnsupportedCapability(
                    f"{self.path}: tensor '{name}' is not part of the Llama architecture "
                    "as it is read here"
                )


def _source(name: str) -> str:
    """Return the GGUF name of the tensor of canonical `name`."""
    if name in _GLOBAL_TENSORS:
        return _GLOBAL_TENSORS[name]
    _, layer, rest = name.split(".", 2)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{_LAYER_TENSORS[module]}.{kind}"


def _half_split_order(
    rows: npt.NDArray[np.float32], num_heads: int, rotary_dim: int
) -> npt.NDArray[np.float32]:
    """Reorder the first `rotary_dim` rows of each head from pairs (2j, 2j+1) to (j, j + half)."""
    by_head = rows.reshape(num_heads, -1, *rows.shape[1:])
    rotated = np.concatenate([by_head[:, 0:rotary_dim:2], by_head[:, 1:rotary_dim:2]], axis=1)
    return np.concatenate([rotated, by_head[:, rotary_dim:]], axis=1).reshape(rows.shape)


def _refuse_unknown_keys(metadata: GgufMetadata) -> None:
    for key in metadata.keys_under("llama."):
        name = key.removeprefix("llama.")
        if name in _NEUTRAL_VALUES:
            if metadata.value(key) not in _NEUTRAL_VALUES[name]:
                raise metadata.refuse(key, "not supported")
        elif name not in _READ_KEYS | _INFORMATIVE_KEYS:
            raise metadata.refuse(key, "not known for the Llama architecture")


def _read_architecture(file: GgufFile, metadata: GgufMetadata) -> DecoderArchitecture:
    hidden_size = metadata.count("llama.embedding_length")
    num_heads = metadata.count("llama.attention.head_count")
    num_kv_heads = metadata.count("llama.attention.head_count_kv", num_heads)
    if num_heads % num_kv_heads:
        raise metadata.refuse(
            "llama.attention.head_count_kv", f"{num_heads} query heads do not divide by it"
        )
    head_dim = metadata.count("llama.attention.key_length", hidden_size // num_heads)
    if metadata.count("llama.attention.value_length", head_dim) != head_dim:
        raise metadata.refuse("llama.attention.value_length", "it must equal the key length")
    tensors = file.tensors
    sliding_window = metadata.integer("llama.attention.sliding_window", 0)
    return DecoderArchitecture(
        family="llama",
        vocab_size=_vocab_size(file),
        num_layers=metadata.count("llama.block_count"),
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        ffn_size=metadata.count("llama.feed_forward_length"),
        max_positions=metadata.count("llama.context_length"),
        norm_epsilon=metadata.number("llama.attention.layer_norm_rms_epsilon"),
        rotary=_read_rotary(file, metadata, head_dim),
        attention_scale=metadata.number("llama.attention.scale", 0.0) or head_dim**-0.5,
        sliding_window=sliding_window or None,
        has_tied_embedding="output.weight" not in tensors,
        has_attention_bias="blk.0.attn_q.bias" in tensors,
        has_attention_output_bias="blk.0.attn_output.bias" in tensors,
        has_ffn_bias="blk.0.ffn_down.bias" in tensors,
    )


def _vocab_size(file: GgufFile) -> int:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise InvalidRequest(f"{file.path}: tensor 'token_embd.weight' is missing")
    return embedding.shape[0]


def _read_rotary(file: GgufFile, metadata: GgufMetadata, head_dim: int) -> RotaryEmbedding:
    dim = metadata.count("llama.rope.dimension_count", head_dim)
    if dim % 2 or dim > head_dim:
        raise metadata.refuse(
            "llama.rope.dimension_count", f"an even number up to {head_dim} is needed"
        )
    factors: tuple[float, ...] | None = None
    if _FREQUENCY_FACTORS in file.tensors:
        factors = tuple(file.read(_FREQUENCY_FACTORS).ravel().tolist())
        if len(factors) != dim // 2:
            raise InvalidRequest(
                f"{file.path}: tensor '{_FREQUENCY_FACTORS}' has {len(factors)} values, "
                f"{dim // 2} are needed"
            )
    return RotaryEmbedding(
        theta=metadata.number("llama.rope.freq_base", 10_000.0),
        dim=dim,
        linear_factor=_linear_factor(metadata),
        frequency_factors=factors,
    )


def _linear_factor(metadata: GgufMetadata) -> float:
    """Return the factor of position interpolation; other kinds of rope scaling are refused."""
    legacy = metadata.number("llama.rope.scale_linear", 1.0)
    kind = metadata.text("llama.rope.scaling.type", "linear")
    factor = metadata.number("llama.rope.scaling.factor", legacy)
    if kind == "none":
        return 1.0
    if kind != "linear":
        raise metadata.refuse("llama.rope.scaling.type", "'none' and 'linear' are supported")
    return factor or 1.0
