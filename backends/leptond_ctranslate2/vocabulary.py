"""Token ids and the strings that the engine wants in their place.

The engine looks strings up in its vocabulary file; an id is the place of a string in that file. The
engine's own converters may write a string twice (T5's `<extra_id_0>`), whose second place then
cannot be named: importers write every string once.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from leptond.errors import ModelFailed

__all__ = [
    "Vocabulary",
    "find_vocabulary",
    "read_vocabulary",
    "tokenizer_pairs",
    "unique_tokens",
    "vocabulary_tokens",
]


class Vocabulary:
    """Both directions, exact.

    Args:
        tokens: by id; none twice.
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


def find_vocabulary(directory: Path) -> Path:
    """Return the one vocabulary of a model, whose sides share it.

    Raises:
        ModelFailed: there is none.
    """
    for name in ("shared_vocabulary", "vocabulary"):
        for path in (directory / f"{name}.json", directory / f"{name}.txt"):
            if path.is_file():
                return path
    raise ModelFailed(f"{directory} has no vocabulary that source and answer share")


def read_vocabulary(path: Path) -> list[str]:
    """Read a vocabulary file of the engine, JSON or one token a line.

    Raises:
        ModelFailed: it cannot be read.
    """
    try:
        text = path.read_bytes().decode()  # a line's own carriage returns are part of its token
        tokens = json.loads(text) if path.suffix == ".json" else text.removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise ModelFailed(f"{path} cannot be read: {error}") from error
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ModelFailed(f"{path} is no list of tokens")
    return tokens


def vocabulary_tokens(tokenizer: Mapping[str, Any], size: int) -> list[str]:
    """Return the strings of a tokenizer.json by id, as many as the model has embeddings.

    Ids that the tokenizer does not use get a string that no token has.
    """
    names = {token_id: name for name, token_id in tokenizer_pairs(tokenizer) if token_id < size}
    return unique_tokens([names.get(token_id) for token_id in range(size)])


def unique_tokens(tokens: Sequence[str | None]) -> list[str]:
    """Return the tokens with names that nothing has for those without one and for repeated ones.

    The first of equal tokens keeps its name, as in the engine.
    """
    taken = set(tokens)
    free = (name for name in map("<unused_{}>".format, itertools.count()) if name not in taken)
    used: set[str] = set()
    unique = []
    for token in tokens:
        name = next(free) if token is None or token in used else token
        used.add(name)
        unique.append(name)
    return unique


def tokenizer_pairs(tokenizer: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    """Return every token of a tokenizer.json with its id."""
    vocab = tokenizer["model"]["vocab"]
    if isinstance(vocab, Mapping):
        yield from vocab.items()
    else:  # Unigram: pieces with their scores
        yield from ((piece, token_id) for token_id, (piece, _) in enumerate(vocab))
    for added in tokenizer.get("added_tokens") or ():
        yield added["content"], added["id"]
