"""What every checkpoint reader offers: architecture facts, tensors by canonical name, text facts.

Canonical tensor names, matrices `[out, in]` row-major:

    embedding.weight                                   [vocab_size, hidden_size]
    layers.{l}.attention_norm.weight                   [hidden_size]
    layers.{l}.attention.{q|k|v}.{weight|bias}         rows in half-split rotary order
    layers.{l}.attention.{q|k}_norm.weight             [head_dim]
    layers.{l}.attention.o.{weight|bias}
    layers.{l}.ffn_norm.weight                         [hidden_size]
    layers.{l}.ffn.{gate|up|down}.{weight|bias}
    norm.weight                                        [hidden_size]
    head.weight                                        [vocab_size, hidden_size]; absent if tied

Called by importers, on the thread of the import.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leptond.checkpoint.architecture import DecoderArchitecture
from leptond.checkpoint.text_assets import TextAssets

__all__ = ["Checkpoint", "expected_shapes"]


class Checkpoint(ABC):
    """One opened checkpoint. All that can be refused was refused when it was opened."""

    path: Path
    architecture: DecoderArchitecture
    text: TextAssets

    @abstractmethod
    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """Return the tensor of canonical `name`, read and dequantised now.

        Raises:
            KeyError: the architecture has no tensor of that name.
        """


def expected_shapes(architecture: DecoderArchitecture) -> dict[str, tuple[int, ...]]:
    """Return every tensor that `architecture` needs, by canonical name, with its shape."""
    a = architecture
    query, key = a.num_heads * a.head_dim, a.num_kv_heads * a.head_dim
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (a.vocab_size, a.hidden_size)}
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
            shapes[f"{prefix}{name}.weight"] = (num_outputs, num_inputs)
            if has_bias:
                shapes[f"{prefix}{name}.bias"] = (num_outputs,)
    shapes["norm.weight"] = (a.hidden_size,)
    if not a.has_tied_embedding:
        shapes["head.weight"] = (a.vocab_size, a.hidden_size)
    return shapes
