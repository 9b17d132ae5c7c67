"""Marks: single characters that stand for control tokens where text is being put together.

A control token that a template writes is replaced by its mark before the template is compiled,
so that marks in the rendered text are the template's own doing. What a caller wrote is never a
mark: characters that look like one are replaced by stand-ins before rendering and put back after.
So no content can forge a control token, not even in pieces that the template joins.

I1  Marks are code points of plane 13, which Unicode has not assigned and never met in text.
I2  One mark per control token, the same in every thread and process: `FIRST_MARK` + its index.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice

from leptond.errors import InvalidRequest, ModelFailed

__all__ = ["FIRST_SPARE_MARK", "RESERVED", "ControlMarks", "Shield"]

_FIRST_MARK = 0xD0000
FIRST_SPARE_MARK = 0xDF000
"""From here to the end of the plane: marks of other kinds, handed out by the chat template."""

RESERVED = re.compile("[\U000d0000-\U000dffff]")
"""Any mark, or a character that looks like one."""

_SURROGATE = re.compile("[\ud800-\udfff]")
# Planes 4 to 12 are not assigned either.
_STAND_INS = range(0x40000, _FIRST_MARK)


class ControlMarks:
    """The marks of one vocabulary's control tokens.

    Args:
        tokens: text to id, in the order of their marks.
    """

    def __init__(self, tokens: Mapping[str, int]) -> None:
        if len(tokens) > FIRST_SPARE_MARK - _FIRST_MARK:
            raise ModelFailed(f"the tokenizer has {len(tokens)} control tokens, too many to mark")
        self.token_ids = dict(tokens)
        self.mark_of = {text: chr(_FIRST_MARK + index) for index, text in enumerate(tokens)}
        self.text_of = {mark: text for text, mark in self.mark_of.items()}
        # Longest first: of two tokens that begin alike, a tokenizer takes the longer one.
        longest_first = sorted(tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def mark_tokens(self, text: str) -> str:
        """Return `text` with each control token in it replaced by its mark."""
        return self._pattern.sub(lambda match: self.mark_of[match[0]], text)


class Shield:
    """Keeps a caller's texts from looking like marks while they are rendered.

    Args:
        texts: all that goes into one rendering.

    Raises:
        InvalidRequest: a text holds a lone surrogate, which no encoding can carry.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        suspect = [text for text in texts if not text.isascii()]
        for text in suspect:
            if found := _SURROGATE.search(text):
                message = f"a message holds U+{ord(found[0]):04X}, a lone surrogate: not text"
                raise InvalidRequest(message, field="input.messages")
        reserved = set(chain.from_iterable(map(RESERVED.findall, suspect)))
        stand_ins = list(islice(_unused(suspect), len(reserved))) if reserved else []
        if len(stand_ins) < len(reserved):
            message = "the messages hold more unassigned characters than can be told apart"
            raise InvalidRequest(message, field="input.messages")
        self._cover = str.maketrans(dict(zip(sorted(reserved), stand_ins, strict=True)))
        self._uncover = str.maketrans(dict(zip(stand_ins, sorted(reserved), strict=True)))

    def cover(self, text: str) -> str:
        """Return one of the texts in a form without marks."""
        return text.translate(self._cover) if self._cover else text

    def uncover(self, text: str) -> str:
        """Undo `cover` in rendered text."""
        return text.translate(self._uncover) if self._uncover else text


def _unused(texts: Iterable[str]) -> Iterator[str]:
    """Yield the possible stand-ins that occur in none of `texts`."""
    used = set(chain.from_iterable(texts))
    return (char for char in map(chr, _STAND_INS) if char not in used)
