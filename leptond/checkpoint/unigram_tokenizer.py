"""Builds the tokenizer.json of a SentencePiece unigram model, with its own ids or a vocabulary's.

Text is normalised as SentencePiece does it: its compiled map, spaces cut and joined, one put in
front, all written as U+2581. The unigram model then chooses the pieces of the best sum of scores.

Marian's vocabulary holds the pieces of two models, one per language. A piece of the other language
must keep its id and never be chosen for this one's text, and `tokenizers` can neither leave it out
nor give it a score that means "never" (the score of unknown text follows from the lowest one). So
it is written with a mark that normalised text cannot contain.

A piece of one character is another matter: SentencePiece hands on what it does not know as it is,
and Marian finds it in the vocabulary if the other language has it. Such a piece gets the score of
unknown text. (Of several unknown characters in a row SentencePiece makes one unknown piece; here
each is looked up.)
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from leptond.checkpoint.sentencepiece_file import SentencePieceFile
from leptond.checkpoint.vocabulary import TokenKind, Vocabulary, added_tokens, post_processor

__all__ = ["unigram", "unigram_of_shared_vocabulary"]

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
# Invisible where a text should show a foreign piece after all.
_MARK = "\N{ZERO WIDTH SPACE}"
# What an unknown character scores below the worst piece: `kUnkPenalty` of SentencePiece.
_UNKNOWN_PENALTY = 10.0


def unigram(
    model: SentencePieceFile, extra_tokens: Sequence[str], unknown_id: int, eos_id: int
) -> dict[str, object]:
    """Return the tokenizer of `model` with its own ids, as the JSON object of `tokenizers`.

    Args:
        model: the pieces.
        extra_tokens: control tokens with the ids after the last piece.
        unknown_id: stands for what no piece can express.
        eos_id: put behind a text when special tokens are added.
    """
    tokens = [piece.text for piece in model.pieces] + list(extra_tokens)
    kinds = [piece.kind for piece in model.pieces] + [TokenKind.CONTROL] * len(extra_tokens)
    scores = [piece.score for piece in model.pieces] + [0.0] * len(extra_tokens)
    return _tokenizer(model, Vocabulary(tuple(tokens), tuple(kinds)), scores, unknown_id, eos_id)


def unigram_of_shared_vocabulary(
    model: SentencePieceFile,
    ids: Mapping[str, int],
    control: Sequence[str],
    unknown_id: int,
    eos_id: int,
) -> dict[str, object]:
    """Return the tokenizer of `model` with the ids of a vocabulary that has other pieces as well.

    Args:
        model: the pieces of one language.
        ids: 0 to n - 1 by token. Pieces that it lacks get ids from n on, which stand for the
            unknown token.
        control: tokens that no text becomes, unless it names them.
        unknown_id: stands for what no piece can express.
        eos_id: put behind a text when special tokens are added.
    """
    scores_of = {
        piece.text: piece.score for piece in model.pieces if piece.kind is TokenKind.NORMAL
    }
    unknown_score = min(scores_of.values(), default=0.0) - _UNKNOWN_PENALTY
    tokens = [""] * len(ids)
    kinds = [TokenKind.NORMAL] * len(ids)
    scores = [0.0] * len(ids)
    for token, token_id in ids.items():
        tokens[token_id] = token
        if token in control:
            kinds[token_id] = TokenKind.CONTROL
        elif token in scores_of:
            scores[token_id] = scores_of[token]
        elif len(token) == 1:
            scores[token_id] = unknown_score
        else:
            tokens[token_id] = _MARK + token
    missing = [text for text in scores_of if text not in ids]
    tokens += missing
    kinds += [TokenKind.NORMAL] * len(missing)
    scores += [scores_of[text] for text in missing]
    return _tokenizer(model, Vocabulary(tuple(tokens), tuple(kinds)), scores, unknown_id, eos_id)


def _tokenizer(
    model: SentencePieceFile,
    vocabulary: Vocabulary,
    scores: Sequence[float],
    unknown_id: int,
    eos_id: int,
) -> dict[str, object]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(vocabulary),
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(model)},
        "pre_tokenizer": None,
        "post_processor": post_processor(vocabulary, None, eos_id),
        "decoder": {
            "type": "Metaspace",
            "replacement": _SPACE,
            "prepend_scheme": "always" if model.adds_space_prefix else "never",
            "split": False,
        },
        "model": {
            "type": "Unigram",
            "unk_id": unknown_id,
            "vocab": [list(entry) for entry in zip(vocabulary.tokens, scores, strict=True)],
            "byte_fallback": TokenKind.BYTE in vocabulary.kinds,
        },
    }


def _normalizers(model: SentencePieceFile) -> list[dict[str, object]]:
    steps: list[dict[str, object]] = []
    if model.charsmap:
        charsmap = base64.b64encode(model.charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    # What is left of the mark is text that no piece holds; so is U+FFFE, a noncharacter.
    steps.append(_replace({"String": _MARK}, "\ufffe"))
    if model.strips_spaces:
        steps.append(_replace({"Regex": r"\A +| +\z"}, ""))
        steps.append(_replace({"Regex": " {2,}"}, " "))
    steps.append(_replace({"String": " "}, _SPACE))
    if model.adds_space_prefix:
        steps.append({"type": "Prepend", "prepend": _SPACE})
    return steps


def _replace(pattern: dict[str, str], content: str) -> dict[str, object]:
    return {"type": "Replace", "pattern": pattern, "content": content}
