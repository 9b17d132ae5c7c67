"""A vocabulary with the kind of each token, and what of a tokenizer.json follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["TokenKind", "Vocabulary", "added_tokens", "post_processor"]


class TokenKind(IntEnum):
    """What a token is to the text; numbers are those of GGUF's `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id, each with its kind; no token occurs twice."""

    tokens: tuple[str, ...]
    kinds: tuple[TokenKind, ...]


def added_tokens(vocabulary: Vocabulary) -> list[dict[str, object]]:
    """Return the tokens that are cut out of a text before the model sees it.

    Control tokens are `special`: `encode_special_tokens` keeps them from being parsed, so that
    they cannot be forged. User-defined tokens are ordinary text with an entry of its own.
    """
    special = (TokenKind.CONTROL, TokenKind.UNKNOWN)
    return [
        {
            "id": token_id,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind in special,
        }
        for token_id, (token, kind) in enumerate(
            zip(vocabulary.tokens, vocabulary.kinds, strict=True)
        )
        if kind in special or kind is TokenKind.USER_DEFINED
    ]


def post_processor(
    vocabulary: Vocabulary, bos_id: int | None, eos_id: int | None
) -> dict[str, object] | None:
    """Return what puts BOS and EOS around a text, or None when neither is wanted."""

    def special(token_id: int) -> dict[str, object]:
        return {"SpecialToken": {"id": vocabulary.tokens[token_id], "type_id": 0}}

    def sequence(name: str) -> list[dict[str, object]]:
        middle: dict[str, object] = {"Sequence": {"id": name, "type_id": 0}}
        before = [] if bos_id is None else [special(bos_id)]
        after = [] if eos_id is None else [special(eos_id)]
        return [*before, middle, *after]

    ids = [token_id for token_id in (bos_id, eos_id) if token_id is not None]
    if not ids:
        return None
    return {
        "type": "TemplateProcessing",
        "single": sequence("A"),
        "pair": [*sequence("A"), *sequence("B")],
        "special_tokens": {
            vocabulary.tokens[token_id]: {
                "id": vocabulary.tokens[token_id],
                "ids": [token_id],
                "tokens": [vocabulary.tokens[token_id]],
            }
            for token_id in ids
        },
    }
