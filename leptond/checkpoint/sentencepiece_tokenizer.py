"""Builds the tokenizer.json of a SentencePiece BPE tokenizer, which has scores and no merges.

SentencePiece joins, again and again, the two neighbours whose union has the best score (the
leftmost of equals). `tokenizers` wants ranked pairs instead: every split of every token into two
tokens, ordered by the score of the union. The two agree as long as no two unions share a score,
which is checked.
"""

from __future__ import annotations

from collections.abc import Sequence

from leptond.checkpoint.vocabulary import TokenKind, Vocabulary, added_tokens, post_processor
from leptond.errors import InvalidRequest, UnsupportedCapability

__all__ = ["sentencepiece_bpe"]

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def sentencepiece_bpe(
    vocabulary: Vocabulary,
    scores: Sequence[float],
    unknown_id: int | None,
    bos_id: int | None,
    eos_id: int | None,
    *,
    add_space_prefix: bool,
    source: str,
) -> dict[str, object]:
    """Return the tokenizer as the JSON object that `tokenizers` reads.

    Args:
        vocabulary: tokens with U+2581 for a space and `<0xNN>` for single bytes.
        scores: one per token; the best union is joined first.
        unknown_id: stands for what neither a token nor bytes can express.
        bos_id: put in front when special tokens are added; None for nothing.
        eos_id: put behind, likewise.
        add_space_prefix: a text, also one after a control token, begins with a space.
        source: file and key of the scores, for messages.
    """
    if len(scores) != len(vocabulary.tokens):
        raise InvalidRequest(f"{source}: {len(scores)} scores for {len(vocabulary.tokens)} tokens")
    prepend = [{"type": "Prepend", "prepend": _SPACE}] if add_space_prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if add_space_prefix else []
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(vocabulary),
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*prepend, _replace(" ", _SPACE)],
        },
        "pre_tokenizer": None,
        "post_processor": post_processor(vocabulary, bos_id, eos_id),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                _replace(_SPACE, " "),
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *strip,
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None if unknown_id is None else vocabulary.tokens[unknown_id],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": TokenKind.BYTE in vocabulary.kinds,
            "ignore_merges": False,
            "vocab": {token: token_id for token_id, token in enumerate(vocabulary.tokens)},
            "merges": _ranked_merges(vocabulary, scores, source),
        },
    }


def _replace(pattern: str, content: str) -> dict[str, object]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def _ranked_merges(vocabulary: Vocabulary, scores: Sequence[float], source: str) -> list[list[str]]:
    """Return the pairs of normal tokens whose union is a normal token, best score first."""
    normal = {
        token
        for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
        if kind is TokenKind.NORMAL
    }
    merges: list[tuple[float, list[str]]] = []
    union_of_score: dict[float, str] = {}
    for token, score in zip(vocabulary.tokens, scores, strict=True):
        if token not in normal:
            continue
        pairs = [[token[:cut], token[cut:]] for cut in range(1, len(token))]
        pairs = [pair for pair in pairs if normal.issuperset(pair)]
        if pairs and union_of_score.setdefault(score, token) != token:
            raise UnsupportedCapability(
                f"{source}: '{union_of_score[score]}' and '{token}' share the score {score}, "
                "so the order of merges is not defined"
            )
        merges += [(score, pair) for pair in pairs]
    return [pair for _, pair in sorted(merges, key=lambda merge: -merge[0])]
