"""Token ids and the strings that the engine wants in their place.

The engine looks strings up in its vocabulary file; an id is the place of a string in that file. A
string that occurs twice would come back as another id, so such a file is refused.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leptond.errors import ModelFailed

__all__ = ["Vocabulary", "read_vocabulary", "vocabulary_tokens"]


class Vocabulary:
    """Both directions, exact.

    Args:
        tokens: by id; no string twice.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._ids = {token: token_id for token_id, token in enumerate(tokens)}

    def __len__(self) -> int:
        return len(self._tokens)

    def strings(self, token_ids: Iterable[int]) -> list[str]:
        """What the engine calls these ids; they are in range."""
        tokens = self._tokens
        return [tokens[token_id] for token_id in token_ids]

    def ids(self, strings: Iterable[str]) -> list[int]:
        """Ids of the engine's strings."""
        ids = self._ids
        return [ids[string] for string in strings]


def read_vocabulary(path: Path) -> list[str]:
    """Read a vocabulary file of the engine, JSON or one token a line.

    Raises:
        ModelFailed: it cannot be read, or a token occurs twice.
    """
    try:
        text = path.read_bytes().decode()  # a line's own carriage returns are part of its token
        tokens = json.loads(text) if path.suffix == ".json" else text.removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise ModelFailed(f"{path} cannot be read: {error}") from error
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ModelFailed(f"{path} is no list of tokens")
    seen: set[str] = set()
    for token in tokens:
        if token in seen:
            raise ModelFailed(f"{path}: token {token!r} occurs twice")
        seen.add(token)
    return tokens


def vocabulary_tokens(tokenizer: Mapping[str, Any], size: int) -> list[str]:
    """Return the strings of a tokenizer.json by id, as many as the model has embeddings.

    Ids that the tokenizer does not use get a string that no token has.
    """
    names = {token_id: name for name, token_id in _pairs(tokenizer) if token_id < size}
    free = _free_names(set(names.values()))
    used: set[str] = set()
    tokens = []
    for token_id in range(size):
        token = names.get(token_id)
        if token is None or token in used:
            token = next(free)
        used.add(token)
        tokens.append(token)
    return tokens


def _free_names(taken: Collection[str]) -> Iterator[str]:
    return (name for name in map("<unused_{}>".format, itertools.count()) if name not in taken)


def _pairs(tokenizer: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    vocab = tokenizer["model"]["vocab"]
    if isinstance(vocab, Mapping):
        yield from vocab.items()
    else:  # Unigram: pieces with their scores
        yield from ((piece, token_id) for token_id, (piece, _) in enumerate(vocab))
    for added in tokenizer.get("added_tokens") or ():
        yield added["content"], added["id"]
