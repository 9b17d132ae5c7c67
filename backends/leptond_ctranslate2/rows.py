"""How a row's answer is decoded, as values; refused by name when wrong or not honoured.

Rows of one run share their options; only `max_tokens` may differ between rows that are answered
token by token, as each of them ends by itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

from leptond.backend import BatchRow
from leptond.backend.batch_checks import check_known_options
from leptond.errors import InvalidRequest
from leptond.types import SamplingParams

__all__ = ["DecodeOptions"]


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How answers are decoded.

    Attributes:
        beam_size: 1 decodes token by token.
        num_hypotheses: answers per row.
        length_penalty: exponent of the length by which a beam's score is divided.
        max_tokens: most tokens of an answer; None is as many as fit.
        min_tokens: the answer does not end before so many.
        stop_token_ids: end an answer; None means the model's own.
        no_repeat_ngram_size: no sequence of so many tokens occurs twice in an answer; 0 is off.
        sampling: None is greedy, or plain beam search.
        logprobs: the answer is of no use without its scores.
    """

    beam_size: int = 1
    num_hypotheses: int = 1
    length_penalty: float = 1.0
    max_tokens: int | None = None
    min_tokens: int = 0
    stop_token_ids: tuple[int, ...] | None = None
    no_repeat_ngram_size: int = 0
    sampling: SamplingParams | None = None
    logprobs: bool = False

    @property
    def is_streamed(self) -> bool:
        """Whether tokens leave as they are made: the engine has no callback for beams."""
        return self.beam_size == self.num_hypotheses == 1

    @classmethod
    def from_row(cls, row: BatchRow) -> DecodeOptions:
        """Read and check the options of one row, `task` aside.

        Raises:
            InvalidRequest: an unknown option, or a value out of range.
        """
        values = {name: value for name, value in row.options.items() if name != "task"}
        check_known_options(row, *(field.name for field in fields(cls)))
        stop = values.get("stop_token_ids")
        if stop is not None:
            values["stop_token_ids"] = tuple(stop)
        options = cls(**values)
        options._check()
        return options

    def _check(self) -> None:
        lowest = {
            "beam_size": 1,
            "num_hypotheses": 1,
            "max_tokens": 0,
            "min_tokens": 0,
            "no_repeat_ngram_size": 0,
        }
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is None and name == "max_tokens":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InvalidRequest(
                    f"{name} is {value!r}, not a whole number from {least}",
                    field=f"options.{name}",
                )
        if self.num_hypotheses > self.beam_size and not self._is_random:
            raise InvalidRequest(
                f"{self.num_hypotheses} hypotheses of {self.beam_size} beams",
                field="options.num_hypotheses",
            )
        if self.beam_size > 1 and self._is_random:
            raise InvalidRequest("beams are not sampled", field="options.sampling")
        if self.sampling is not None:
            _check_ranges(self.sampling)

    @property
    def _is_random(self) -> bool:
        return self.sampling is not None and not self.sampling.is_greedy

    def check_sampling(self, honoured: Collection[str]) -> None:
        """Refuse what would be ignored.

        Raises:
            InvalidRequest: naming it.
        """
        if self.min_tokens and "min_tokens" not in honoured:
            raise InvalidRequest("min_tokens is not honoured here", field="options.min_tokens")
        if self.logprobs and not self.has_plain_scores:
            raise InvalidRequest(
                "logprobs beside min_tokens or a penalty would not be the model's own",
                field="options.logprobs",
            )
        if self.sampling is None:
            return
        # These choose among several tokens, and greedy decoding has one.
        unused = {"min_p", "seed", "top_k", "top_p"} if self.sampling.is_greedy else set()
        for field in fields(SamplingParams):
            value = getattr(self.sampling, field.name)
            default = {} if field.name == "logit_bias" else field.default
            if field.name not in honoured and field.name not in unused and value != default:
                raise InvalidRequest(
                    f"CTranslate2 does not honour {field.name} here; it honours "
                    f"{', '.join(sorted(honoured))}",
                    field=f"sampling.{field.name}",
                )

    def engine_arguments(self, vocab_size: int) -> dict[str, Any]:
        """Return beams and sampling as the engine's arguments.

        It keeps the k best, divides by the temperature, then keeps the mass. That is the order of
        `SamplingParams`, since a temperature does not change which are best.
        """
        return {
            "beam_size": self.beam_size,
            "num_hypotheses": self.num_hypotheses,
            "length_penalty": self.length_penalty,
            "no_repeat_ngram_size": self.no_repeat_ngram_size,
            "return_scores": True,
            "return_end_token": True,
            **self._sampling_arguments(vocab_size),
        }

    def _sampling_arguments(self, vocab_size: int) -> dict[str, Any]:
        sampling = self.sampling
        if sampling is None or sampling.is_greedy:
            penalty = 1.0 if sampling is None else sampling.repetition_penalty
            return {"sampling_topk": 1, "repetition_penalty": penalty}
        return {
            "sampling_topk": min(sampling.top_k, vocab_size),
            "sampling_topp": sampling.top_p,
            "sampling_temperature": sampling.temperature,
            "repetition_penalty": sampling.repetition_penalty,
        }

    @property
    def has_plain_scores(self) -> bool:
        """Whether the engine's scores are the model's own log-probabilities.

        They are taken after penalties and after stop tokens are held back.
        """
        penalty = 1.0 if self.sampling is None else self.sampling.repetition_penalty
        return penalty == 1 and self.min_tokens == 0 and self.no_repeat_ngram_size == 0


def _check_ranges(sampling: SamplingParams) -> None:
    for name, is_right in (
        ("temperature", 0 <= sampling.temperature < math.inf),
        ("top_k", sampling.top_k >= 0),
        ("top_p", 0 < sampling.top_p <= 1),
        ("repetition_penalty", 0 < sampling.repetition_penalty < math.inf),
    ):
        if not is_right:
            raise InvalidRequest(f"{name} is {getattr(sampling, name)!r}", field=f"sampling.{name}")
