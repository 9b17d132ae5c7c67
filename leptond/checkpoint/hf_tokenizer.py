"""Reads a directory's tokenizer.json and what tokenizer_config.json says beside it."""

from __future__ import annotations

from leptond.checkpoint.hf_directory import HfDirectory
from leptond.checkpoint.json_facts import JsonFacts
from leptond.errors import InvalidRequest

__all__ = ["HfTokenizer", "max_input_tokens", "special_token", "truncation_side"]

# transformers writes 1e30 for "no limit".
_NO_LIMIT = 1_000_000


class HfTokenizer:
    """One tokenizer.json, taken as it is.

    Attributes:
        definition: its text.
        engine: the tokenizer.

    Args:
        definition: text of the tokenizer.json.
        source: file, for messages.
        vocab_size: rows of the model's embedding; a token beyond is an error. None: the
            tokenizer was made here, and ids beyond have a meaning.

    Raises:
        InvalidRequest: it cannot be read, or has more tokens than the model.
    """

    def __init__(self, definition: str, source: str, vocab_size: int | None) -> None:
        self.definition = definition
        import tokenizers  # noqa: PLC0415 - only an import needs it, not a daemon that serves

        try:
            self.engine = tokenizers.Tokenizer.from_str(definition)
        except Exception as error:  # the library raises Exception itself
            raise InvalidRequest(f"{source}: {error}") from error
        # Padding and truncation of the file would change what is counted below.
        self.engine.no_padding()
        self.engine.no_truncation()
        self._ids = frozenset(self.engine.get_vocab(with_added_tokens=True).values())
        largest = max(self._ids, default=-1)
        if vocab_size is not None and largest >= vocab_size:
            raise InvalidRequest(
                f"{source}: token {largest} is beyond the {vocab_size} rows of the embedding"
            )

    @classmethod
    def read(
        cls, directory: HfDirectory, vocab_size: int, name: str = "tokenizer.json"
    ) -> HfTokenizer:
        """Read the file `name` of `directory`."""
        path = directory.path / name
        definition = directory.text(name)
        if definition is None:
            raise InvalidRequest(
                f"{path} is missing: save the model's fast tokenizer beside it "
                "(AutoTokenizer.from_pretrained(…).save_pretrained(…) of transformers does)"
            )
        return cls(definition, str(path), vocab_size)

    @property
    def num_special_single(self) -> int:
        """Special tokens that a single text gets."""
        return int(self.engine.num_special_tokens_to_add(is_pair=False))

    def ids_around_nothing(self) -> list[int]:
        """Return what an empty text becomes: the special tokens alone."""
        return list(self.engine.encode("", add_special_tokens=True).ids)

    def has_id(self, token_id: object) -> bool:
        """Whether a token of that id is in the vocabulary."""
        return type(token_id) is int and token_id in self._ids

    def id_of(self, token: str) -> int | None:
        """Return the id of a token, None when it is not in the vocabulary."""
        token_id: int | None = self.engine.token_to_id(token)
        return token_id


def max_input_tokens(config: JsonFacts, *limits: int | None) -> int | None:
    """Return the smallest of `model_max_length` and `limits`; None when nothing limits."""
    stated = config.number("model_max_length", float(_NO_LIMIT))
    if stated < 1:
        raise config.invalid("model_max_length", "it is not a count")
    known = [int(limit) for limit in (stated, *limits) if limit is not None and limit < _NO_LIMIT]
    return min(known, default=None)


def truncation_side(config: JsonFacts) -> str:
    """Return which end of a text is cut: tokenizer_config.json's, else the right one."""
    side = config.text("truncation_side", "right")
    if side not in ("left", "right"):
        raise config.invalid("truncation_side", "left or right is needed")
    return side


def special_token(config: JsonFacts, key: str) -> str | None:
    """Return the text of a special token, which files write as a string or as an object."""
    if isinstance(config.values.get(key), dict):
        return config.object(key).text("content")
    return config.text(key, "") or None
