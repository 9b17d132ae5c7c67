"""Control tokens that end a turn or a text in every model that has them.

Many files name one such token as EOS while the chat template ends its turns with another.
"""

from __future__ import annotations

__all__ = ["STOP_TOKENS"]

STOP_TOKENS = frozenset(
    {
        "</s>",
        "<end_of_turn>",
        "<|end_of_text|>",
        "<|endoftext|>",
        "<|end|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|im_end|>",
    }
)
