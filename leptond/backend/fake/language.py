"""The fake model's language: pseudo-words, each token a pure function of all tokens before it.

One lost, doubled or swapped token anywhere in a history changes everything that follows, so a
scheduler that makes a mistake cannot give the right text. A vocabulary of bytes makes any text a
prompt; some vowels take two tokens, so that characters get cut between chunks.

    vocabulary   0-255 the bytes, 256 <|endoftext|>, 257 <|im_start|>, 258 <|im_end|>
    hash         FNV-1a over token ids, 64 bits, kept for every prefix; mixed as in MurmurHash3
    logits       noise in [-1, 1) chosen by the hash, + 8 for tokens that may follow, + 3 for one

Used on a session's worker thread; a language is immutable, a history belongs to one row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from leptond.backend.fake.options import FakeOptions

__all__ = [
    "CONTROL_TOKENS",
    "END_OF_TEXT",
    "END_OF_TURN",
    "START_OF_TURN",
    "VOCAB_SIZE",
    "FakeLanguage",
    "TokenHistory",
    "expected_tokens",
]

END_OF_TEXT, START_OF_TURN, END_OF_TURN = 256, 257, 258
CONTROL_TOKENS = {
    END_OF_TEXT: "<|endoftext|>",
    START_OF_TURN: "<|im_start|>",
    END_OF_TURN: "<|im_end|>",
}
VOCAB_SIZE = 256 + len(CONTROL_TOKENS)

_MASK = (1 << 64) - 1
_FNV_BASIS, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
_NUM_NOISES = 1 << 16  # places in the table of noise at which a line of logits may begin
_MAY_FOLLOW, _CHOSEN = 8.0, 3.0
_MIN_WORD, _MAX_WORD = 3, 9

_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_VOWELS, _CONSONANTS = b"aeiou", b"bdfgklmnprstvz"
_ACCENT, _ACCENTED = 0xC3, b"\xa9\xb6\xbc"  # UTF-8 of é, ö and ü
_SENTENCE_ENDS, _SPACE, _COMMA = b".!?", ord(" "), ord(",")


@dataclass(frozen=True)
class _Follow:
    """Tokens that may come next; one that is listed more often is chosen more often."""

    choices: tuple[int, ...]

    @cached_property
    def boost(self) -> npt.NDArray[np.float32]:
        boost = np.zeros(VOCAB_SIZE, np.float32)
        boost[list(self.choices)] = _MAY_FOLLOW
        return boost


_CAPITAL = _Follow(tuple(_CONSONANTS.upper()))
_CONSONANT = _Follow(tuple(_CONSONANTS))
_VOWEL = _Follow((*_VOWELS, *_VOWELS, *_VOWELS, _ACCENT))
_ACCENTED_VOWEL = _Follow(tuple(_ACCENTED))
_BREAK = _Follow(tuple(b"      ,.."))
_MIDDLE = _Follow(_CONSONANT.choices + _BREAK.choices)
_GAP = _Follow((_SPACE,))


class TokenHistory:
    """The tokens of one row, with the hash of every prefix, so that cutting costs nothing."""

    __slots__ = ("hashes", "tokens")

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self.tokens: list[int] = []
        self.hashes = [_FNV_BASIS]
        self.extend(tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """Append tokens."""
        value = self.hashes[-1]
        for token in tokens:
            value = ((value ^ token) * _FNV_PRIME) & _MASK
            self.tokens.append(token)
            self.hashes.append(value)

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens."""
        del self.tokens[length:]
        del self.hashes[length + 1 :]

    def prefix(self, length: int) -> TokenHistory:
        """A history of its own with the first `length` tokens."""
        copy = TokenHistory()
        copy.tokens, copy.hashes = self.tokens[:length], self.hashes[: length + 1]
        return copy


class FakeLanguage:
    """Logits of any history.

    Args:
        seed: another seed is another model.
        mean_sentences: each sentence is the last one with the chance of its inverse; 0: never.
    """

    def __init__(self, seed: int = 0, mean_sentences: int = 4) -> None:
        self._seed = seed
        self._noise = _noise(seed)
        ends = (_SPACE,) * (mean_sentences - 1) + (END_OF_TURN,)
        self._sentence_end = _Follow(ends) if mean_sentences else _GAP

    def logits(self, history: TokenHistory, length: int) -> npt.NDArray[np.float32]:
        """Raw logits of what follows the first `length` tokens: float32 `[VOCAB_SIZE]`.

        The largest leads by at least 1: no rounding changes a greedy text.
        """
        mixed = _mix(history.hashes[length] ^ self._seed)
        follow = self._follow(history.tokens, length)
        start = mixed & (_NUM_NOISES - 1)
        logits: npt.NDArray[np.float32] = self._noise[start : start + VOCAB_SIZE] + follow.boost
        logits[_choose(follow, mixed)] += _CHOSEN
        return logits

    def next_token(self, history: TokenHistory) -> int:
        """The greedy token after the whole history: the argmax of its logits."""
        mixed = _mix(history.hashes[-1] ^ self._seed)
        return _choose(self._follow(history.tokens, len(history)), mixed)

    def generate(self, prompt_ids: Sequence[int]) -> Iterator[int]:
        """The greedy continuation, without an end."""
        history = TokenHistory(prompt_ids)
        while True:
            token = self.next_token(history)
            history.extend((token,))
            yield token

    def embed(self, tokens: Sequence[int], num_dimensions: int) -> npt.NDArray[np.float32]:
        """A vector of length 1 that depends on every token: float32 `[num_dimensions]`."""
        mixed = _mix(TokenHistory(tokens).hashes[-1] ^ self._seed)
        start = mixed & (_NUM_NOISES - 1)
        vector = self._noise[start : start + num_dimensions]
        return np.asarray(vector / np.linalg.norm(vector), np.float32)

    def _follow(self, tokens: Sequence[int], length: int) -> _Follow:
        """What may come after the first `length` tokens: the grammar."""
        last = tokens[length - 1] if length else ord("\n")
        if last >= END_OF_TEXT or last == ord("\n"):
            follow = _CAPITAL
        elif last == _ACCENT:
            follow = _ACCENTED_VOWEL
        elif last in _SENTENCE_ENDS:
            follow = self._sentence_end
        elif last == _SPACE:
            ends_sentence = length > 1 and tokens[length - 2] in _SENTENCE_ENDS
            follow = _CAPITAL if ends_sentence else _CONSONANT
        elif last in _CONSONANTS or last in _CONSONANTS.upper():
            follow = _VOWEL
        elif last in _LETTERS or last in _ACCENTED:
            follow = _after_vowel(tokens, length)
        else:
            follow = _GAP
        return follow


def expected_tokens(
    prompt_ids: Sequence[int],
    num_tokens: int,
    options: FakeOptions | None = None,
    *,
    stop_token_ids: frozenset[int] = frozenset(),
) -> list[int]:
    """The truth: the greedy answer of a fake model that serves this prompt alone.

    Args:
        prompt_ids: the tokens of the prompt.
        num_tokens: most tokens to answer.
        options: those of the model; only `seed` and `mean_sentences` matter.
        stop_token_ids: the first of them is the last token.
    """
    options = options or FakeOptions()
    answer = FakeLanguage(options.seed, options.mean_sentences).generate(prompt_ids)
    tokens: list[int] = []
    while len(tokens) < num_tokens and not (tokens and tokens[-1] in stop_token_ids):
        tokens.append(next(answer))
    return tokens


def _after_vowel(tokens: Sequence[int], length: int) -> _Follow:
    word = 0
    while word < min(length, _MAX_WORD) and (
        tokens[length - 1 - word] in _LETTERS or tokens[length - 1 - word] in (_ACCENT, *_ACCENTED)
    ):
        word += 1
    if word < _MIN_WORD:
        return _CONSONANT
    return _BREAK if word >= _MAX_WORD else _MIDDLE


def _choose(follow: _Follow, mixed: int) -> int:
    return follow.choices[(mixed >> 16) % len(follow.choices)]


def _mix(value: int) -> int:
    """MurmurHash3's 64-bit finaliser: every bit of the hash reaches every bit of the answer."""
    value ^= value >> 33
    value = (value * 0xFF51AFD7ED558CCD) & _MASK
    value ^= value >> 33
    value = (value * 0xC4CEB9FE1A85EC53) & _MASK
    return value ^ (value >> 33)


def _noise(seed: int) -> npt.NDArray[np.float32]:
    """Uniform in [-1, 1): SplitMix64 of each place, the same under every version of numpy."""
    value = np.arange(_NUM_NOISES + VOCAB_SIZE, dtype=np.uint64)
    value = (value + np.uint64(seed & _MASK)) * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    # 23 bits: exact in float32, so that nothing is rounded up to 1.
    return (value >> np.uint64(41)).astype(np.float32) / np.float32(1 << 22) - np.float32(1)
