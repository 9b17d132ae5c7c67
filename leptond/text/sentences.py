"""Where sentences of a text begin and end, and where a long one can be cut. Pure.

Rules, not statistics: a sentence ends at its mark of punctuation, unless that stands in a number,
after an initial, after a known abbreviation or before a small letter; and at an empty line. Where
they err a translator reads two sentences at once, or a half; nothing is ever lost. Every function
takes time in proportion to the text.
"""

# ruff: noqa: RUF001, SIM905 - look-alikes of other scripts are meant; words are easier to read
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

__all__ = ["Span", "cut_in_two", "split_sentences", "strip_span"]

Span: TypeAlias = tuple[int, int]
"""First character of a part of a text, and the one behind its last."""

_OPEN_MARKS = ".!?…‥؟۔।॥።៕"  # end a sentence where white space follows
_CLOSED_MARKS = "。！？｡．"  # end a sentence anywhere: no white space follows in their scripts
_CLOSERS = "\"'”’»›)]}）」』】》〉"
_BREAK = re.compile(rf"\s+|[{re.escape(_OPEN_MARKS + _CLOSED_MARKS)}]+[{re.escape(_CLOSERS)}]*")
_LAST_WORD = re.compile(r"[^\s(\[{\"'“‘«]+\Z")
_LONGEST_ABBREVIATION = 12

# In small letters, without the last full stop. Only such as hardly ever end a sentence.
_ABBREVIATIONS = frozenset(  # as lines of words they can be read
    # English
    "mr mrs ms messrs dr prof st rev gen capt lt sgt sen rep gov vs cf e.g i.e eg ie approx nos "
    "vol pp fig figs eq eds jan feb mar apr jun jul aug sept sep oct nov dec "
    # German
    "hr fr hrn nr abb bzw ca d.h z.b u.a v.a s.o s.u evtl ggf inkl bspw sog vgl tel "
    # French, Spanish, Portuguese, Italian
    "m mm mme mlle p.ex env sr sra srta dra ud uds p.ej núm pág sig sig.ra dott "
    # Dutch, Scandinavian languages, Polish, Russian
    "dhr mevr bijv blz o.a t.ex bl.a f.eks tzn np ул г стр т.е т.к"
    .split()
)  # fmt: skip

# Languages that write "3rd" as "3.".
_ORDINAL_LANGUAGES = frozenset(
    ("de", "da", "nb", "nn", "no", "fi", "et", "lv", "cs", "sk", "sl", "hr", "bs", "sr", "hu", "pl",
     "is", "fo", "tr")
)  # fmt: skip
_MAX_ORDINAL_DIGITS = 2

# From the best to the worst place for a cut: after a clause, between words, anywhere.
_CLAUSE_END = re.compile(rf"[,;:،؛—–、，；：]+[{re.escape(_CLOSERS)}]*\s*")
_CLOSED_CLAUSE_MARKS = frozenset("、，；：")
_WORD_END = re.compile(r"\s+")


def split_sentences(text: str, language: str = "") -> list[Span]:
    """Return where the sentences of a text stand, without the white space around them.

    What is between two spans, before the first and behind the last is white space only.

    Args:
        text: any text.
        language: its ISO 639-1 code; "" when that is not known.
    """
    spans = []
    start = 0
    for end in _ends(text, language):
        span = strip_span(text, (start, end))
        if span[0] < span[1]:
            spans.append(span)
        start = end
    return spans


def strip_span(text: str, span: Span) -> Span:
    """Return the span without the white space at its ends."""
    start, end = span
    part = text[start:end]
    first = start + len(part) - len(part.lstrip())
    return first, max(first, start + len(part.rstrip()))


def cut_in_two(text: str) -> int:
    """Return a place near the middle of a text where it can be cut, from 1 to `len(text) - 1`.

    After a clause, else between two words, else between two characters.

    Raises:
        ValueError: fewer than two characters.
    """
    length = len(text)
    if length <= 1:
        raise ValueError("one character cannot be cut")
    middle = length / 2
    for pattern in (_CLAUSE_END, _WORD_END):
        # Each half holds at least a quarter, so that few cuts make a text as short as is wanted.
        places = (
            found.end()
            for found in pattern.finditer(text, length // 4, length - length // 4)
            if found.group()[-1].isspace() or not _CLOSED_CLAUSE_MARKS.isdisjoint(found.group())
        )
        nearest = min(places, key=lambda place: abs(place - middle), default=0)
        if 0 < nearest < length:
            return nearest
    return length // 2


def _ends(text: str, language: str) -> Iterator[int]:
    """Yield the ends of sentences, in order, the text's own end last."""
    for found in _BREAK.finditer(text):
        place = found.end()
        mark = found.group()
        if mark.isspace():
            if mark.count("\n") > 1:
                yield place
        elif any(char in _CLOSED_MARKS for char in mark) or (
            text[place : place + 1].isspace() and _is_end(text, found, language)
        ):
            yield place
    yield len(text)


def _is_end(text: str, found: re.Match[str], language: str) -> bool:
    """Whether a mark with white space behind it ends its sentence."""
    if _follows_small_letter(text, found.end()):
        return False
    if found.group() != ".":
        return True
    before = _LAST_WORD.search(text[max(0, found.start() - _LONGEST_ABBREVIATION) : found.start()])
    word = before.group() if before else ""
    if len(word) == 1 and word.isalpha() and word.isupper():
        return False  # an initial
    if word.isdecimal() and len(word) <= _MAX_ORDINAL_DIGITS and language in _ORDINAL_LANGUAGES:
        return False
    return word.casefold() not in _ABBREVIATIONS


def _follows_small_letter(text: str, place: int) -> bool:
    following = text[place : place + 4].lstrip()
    return following[:1].islower()
