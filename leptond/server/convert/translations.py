"""How to translate: from the wire to the options of rows, every range checked by its field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leptond.checkpoint import Seq2SeqDefaults
from leptond.errors import InvalidRequest
from leptond.server.convert.requests import optional
from leptond.types import SamplingParams, Task
from leptond.v1 import translation_pb2

__all__ = ["Search", "search"]

_MAX_BEAM = 32
_LENGTH_PENALTIES = (-10.0, 10.0)
_REPETITION_PENALTIES = (0.01, 100.0)
_MAX_NGRAM = 1024


@dataclass(frozen=True, slots=True)
class Search:
    """How translations are looked for.

    Attributes:
        beam_size: hypotheses that are kept; with 1, tokens come as they are made.
        num_alternatives: translations of each sentence.
        length_penalty: exponent of the length by which a score is divided.
        row_options: see `BatchRow.options`.
    """

    beam_size: int
    num_alternatives: int
    length_penalty: float
    row_options: Mapping[str, Any]


def search(wire: translation_pb2.TranslationOptions, defaults: Seq2SeqDefaults) -> Search:
    """Read the options; an unset one takes the model's default, then the API's.

    Raises:
        InvalidRequest: a value is out of its range.
    """
    beam_size = _count(wire, "beam_size", min(defaults.beam_size, _MAX_BEAM), 1, _MAX_BEAM)
    num_alternatives = _count(wire, "num_alternatives", 1, 1, beam_size)
    longest = defaults.max_target_tokens
    max_tokens = min(_count(wire, "max_tokens", longest, 1, 0xFFFF_FFFF), longest)
    ngram_size = _count(wire, "no_repeat_ngram_size", 0, 0, _MAX_NGRAM)
    penalty = _number(wire, "repetition_penalty", 1.0, *_REPETITION_PENALTIES)
    length_penalty = _number(wire, "length_penalty", defaults.length_penalty, *_LENGTH_PENALTIES)
    options = {
        "task": Task.TRANSLATE.value,
        "beam_size": beam_size,
        "num_hypotheses": num_alternatives,
        "length_penalty": length_penalty,
        "max_tokens": max_tokens,
        "no_repeat_ngram_size": ngram_size,
        "sampling": SamplingParams(temperature=0.0, repetition_penalty=penalty),
    }
    return Search(beam_size, num_alternatives, length_penalty, options)


def _count(
    wire: translation_pb2.TranslationOptions, name: str, default: int, low: int, high: int
) -> int:
    value = optional(wire, name, default)
    if not low <= value <= high:
        field = f"translation.{name}"
        raise InvalidRequest(f"{field} is {value}; it must be from {low} to {high}", field=field)
    return value


def _number(
    wire: translation_pb2.TranslationOptions, name: str, default: float, low: float, high: float
) -> float:
    value = optional(wire, name, default)
    if not (math.isfinite(value) and low <= value <= high):
        field = f"translation.{name}"
        msg = f"{field} is {value:g}; it must be from {low:g} to {high:g}"
        raise InvalidRequest(msg, field=field)
    return value
