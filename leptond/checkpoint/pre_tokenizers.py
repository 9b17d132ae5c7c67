"""Pre-tokenizers of byte-level BPE by the name that GGUF gives them in `tokenizer.ggml.pre`.

A name decides how text is cut before merging; a wrong one passes plain prompts and differs on odd
ones, so a name that is not here is an error and never a guess. The expressions are those of the
models' own tokenizers, and for "default" that of the format's reference implementation.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRE_TOKENIZERS", "PreTokenizer"]


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """How text becomes the pieces that are merged.

    Attributes:
        steps: `tokenizers` pre-tokenizers in order; the last one maps bytes to letters.
        normalizer: `tokenizers` normalizer, or None.
        ignores_merges: a piece that is a token is taken as it is, whatever the merges say.
        adds_bos: files without `tokenizer.ggml.add_bos_token` mean true.
    """

    steps: tuple[dict[str, object], ...]
    normalizer: dict[str, object] | None = None
    ignores_merges: bool = False
    adds_bos: bool = False


def _byte_level(*, use_regex: bool) -> dict[str, object]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": use_regex,
    }


def _split(pattern: str) -> dict[str, object]:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def _cl100k(digits: str) -> str:
    """Return the expression of OpenAI's cl100k, with `digits` as its rule for numbers."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_GPT2 = PreTokenizer((_byte_level(use_regex=True),))
_SINGLE_DIGITS = PreTokenizer(
    ({"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True))
)
_LLAMA3 = PreTokenizer(
    (_split(_cl100k(r"\p{N}{1,3}")), _byte_level(use_regex=False)),
    ignores_merges=True,
    adds_bos=True,
)
_QWEN2 = PreTokenizer(
    (_split(_cl100k(r"\p{N}")), _byte_level(use_regex=False)),
    normalizer={"type": "NFC"},
)

# llama.cpp's rule; it has no tokenizer of a model behind it.
_DEFAULT = PreTokenizer(
    (
        _split(r"[\p{P}\$\+<=>\^~\|]+"),
        _split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
        _split(r"\p{N}+"),
        _split("[0-9][0-9][0-9]"),
        _byte_level(use_regex=False),
    )
)

PRE_TOKENIZERS = {
    "default": _DEFAULT,
    "gpt-2": _GPT2,
    "llama-bpe": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama3": _LLAMA3,
    "qwen2": _QWEN2,
    "smollm": _SINGLE_DIGITS,
}
