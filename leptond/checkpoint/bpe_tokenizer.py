"""Builds the tokenizer.json of a byte-level BPE tokenizer (GPT-2 and after)."""

from __future__ import annotations

from collections.abc import Sequence

from leptond.checkpoint.pre_tokenizers import PreTokenizer
from leptond.checkpoint.vocabulary import Vocabulary, added_tokens, post_processor
from leptond.errors import InvalidRequest

__all__ = ["byte_level_bpe"]


def byte_level_bpe(
    vocabulary: Vocabulary,
    merges: Sequence[str],
    pre_tokenizer: PreTokenizer,
    bos_id: int | None,
    eos_id: int | None,
    *,
    source: str,
) -> dict[str, object]:
    """Return the tokenizer as the JSON object that `tokenizers` reads.

    Args:
        vocabulary: tokens in byte-level letters.
        merges: "left right", in order of rank.
        pre_tokenizer: how text is cut before merging.
        bos_id: put in front when special tokens are added; None for nothing.
        eos_id: put behind, likewise.
        source: file and key of the merges, for messages.
    """
    vocab = {token: token_id for token_id, token in enumerate(vocabulary.tokens)}
    byte_level = pre_tokenizer.steps[-1]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(vocabulary),
        "normalizer": pre_tokenizer.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(pre_tokenizer.steps)},
        "post_processor": post_processor(vocabulary, bos_id, eos_id),
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre_tokenizer.ignores_merges,
            "vocab": vocab,
            "merges": [_merge(merge, vocab, source) for merge in merges],
        },
    }


def _merge(merge: str, vocab: dict[str, int], source: str) -> list[str]:
    # A token may itself begin with a space, so the separator is sought from the second letter.
    middle = merge.find(" ", 1)
    left, right = merge[:middle], merge[middle + 1 :]
    if middle < 0 or left not in vocab or right not in vocab or left + right not in vocab:
        raise InvalidRequest(f"{source}: {merge!r} does not join two tokens into a third")
    return [left, right]
