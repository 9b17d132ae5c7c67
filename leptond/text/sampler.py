"""Chooses the next token of one request, exactly, from what a step answers.

A step answers with the best candidates of the processed logits; they nearly always decide. Where
they do not (top_k beyond them, a nucleus that is wider, a draw that falls behind them) the whole
row is processed here and decides.

Made per request; used on the worker thread, once per token.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from leptond.backend import RowPick, StepResult
from leptond.backend.picking import process_logits
from leptond.errors import BackendFault, InvalidRequest
from leptond.text.picking import pick_from_candidates, pick_from_row
from leptond.text.tokenizer import Tokenizer
from leptond.types import SamplingParams, StopConditions, TokenLogprob

__all__ = ["Sampler", "check_finite"]

# Below it float32 logits overflow; at it the likeliest token has all the mass already.
_MIN_TEMPERATURE = 1e-6


def check_finite(result: StepResult) -> None:
    """Refuse the answers of a step that hold NaN or infinity.

    For rows that are picked without a sampler; `Sampler.choose` checks its own line.

    Raises:
        BackendFault: names the first such line.
    """
    is_finite = np.isfinite(result.raw_log_normalizer)
    if not is_finite.all():
        raise _not_finite(int(np.flatnonzero(~is_finite)[0]))


def _not_finite(line: int) -> BackendFault:
    return BackendFault(f"line {line} of a step holds logits that are NaN or infinite")


class Sampler:
    """Sampling state of one request: its random numbers, penalties and masks.

    Args:
        params: how to choose.
        stop: its stop tokens are not chosen before `min_tokens`.
        prompt_ids: what the repetition penalty is about, together with the answer.
        vocab_size: of the model, padding included.

    Raises:
        InvalidRequest: `logit_bias` names a token that the model does not have.
    """

    def __init__(
        self,
        params: SamplingParams,
        stop: StopConditions,
        prompt_ids: Sequence[int],
        vocab_size: int,
    ) -> None:
        for token_id in params.logit_bias:
            if not 0 <= token_id < vocab_size:
                field = f"sampling.logit_bias[{token_id}]"
                message = f"{field}: not in the model's vocabulary of {vocab_size}"
                raise InvalidRequest(message, field=field)
        self._params = params
        self._vocab_size = vocab_size
        self._random = random.Random(params.seed)
        self._min_tokens = stop.min_tokens
        self._num_sampled = 0
        self._counts: Counter[int] = Counter()
        self._masked_ids = frozenset(
            token_id
            for token_id in stop.stop_token_ids
            if stop.min_tokens > 0 and 0 <= token_id < vocab_size
        )
        self._repetition = self._new_repetition(prompt_ids)
        self._bias = self._new_bias()
        self._pick = self._new_pick()

    @property
    def needs_draw(self) -> bool:
        """Whether choosing takes a random number: not for a greedy request."""
        return not self._params.is_greedy

    def pick_for_step(self) -> RowPick | None:
        """Return how the engine is to process the row of the next step; None: not at all.

        The arrays in it change with every recorded token: they are for the next step only.
        """
        return self._pick

    def choose(self, result: StepResult, line: int) -> int:
        """Return the token that line `line` gives, and record it.

        Raises:
            BackendFault: the logits hold NaN or infinity.
            InvalidRequest: every token is masked.
        """
        self._check(result, line)
        token_id = self._likeliest(result, line)
        if self.needs_draw:
            token_id = self._drawn(result, line)
        self.record(token_id)
        return token_id

    def record(self, token_id: int) -> None:
        """Take a token of the answer into account: `choose` does, a caller who chose must."""
        self._num_sampled += 1
        self._counts[token_id] += 1
        if self._repetition is not None:
            self._repetition[token_id] = self._params.repetition_penalty
        if self._bias is not None:
            self._bias[token_id] = self._bias_of(token_id)
        if self._masked_ids and self._num_sampled >= self._min_tokens:
            self._masked_ids = frozenset()
            self._bias = self._new_bias()
            self._pick = self._new_pick()

    def logprob(
        self, result: StepResult, line: int, token_id: int, num_top: int, tokenizer: Tokenizer
    ) -> TokenLogprob:
        """Return what the model itself, without any processing, thought of `token_id`.

        Args:
            result: of the step that `token_id` was chosen from, before the next step.
            line: its line.
            token_id: the chosen token.
            num_top: so many of the likeliest tokens are given beside it.
            tokenizer: knows the tokens' bytes.
        """
        raw = result.logits[line]
        normalizer = float(result.raw_log_normalizer[line])

        def entry(token_id: int, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
            logprob = float(raw[token_id]) - normalizer
            return TokenLogprob(token_id, logprob, tokenizer.token_bytes(token_id), top)

        top_ids = self._raw_top(result, line, num_top)
        return entry(token_id, tuple(entry(top_id) for top_id in top_ids))

    def _check(self, result: StepResult, line: int) -> None:
        if not math.isfinite(result.raw_log_normalizer[line]):
            raise _not_finite(line)
        if result.log_normalizer[line] == -math.inf:
            raise InvalidRequest("every token is masked", field="sampling.logit_bias")
        if not math.isfinite(result.log_normalizer[line]):
            raise _not_finite(line)

    def _likeliest(self, result: StepResult, line: int) -> int:
        return int(result.candidate_ids[line, 0])

    def _drawn(self, result: StepResult, line: int) -> int:
        draw = self._random.random()
        place = pick_from_candidates(
            result.candidate_logits[line].tolist(),
            float(result.log_normalizer[line]),
            self._params,
            draw,
            vocab_size=self._vocab_size,
        )
        candidate_ids = result.candidate_ids[line]
        if place is not None:
            return int(candidate_ids[place])
        raw = result.logits[line]
        row = raw if self._pick is None else process_logits(raw, self._pick)
        return pick_from_row(row, candidate_ids, self._params, draw)

    def _raw_top(self, result: StepResult, line: int, num_top: int) -> list[int]:
        """Return the ids of the likeliest tokens, best first; of equals the lower id first."""
        candidate_ids = result.candidate_ids[line]
        keeps_order = self._repetition is None and self._bias is None
        if keeps_order and num_top <= len(candidate_ids):
            return [int(token_id) for token_id in candidate_ids[:num_top]]
        if num_top == 0:
            return []
        raw = result.logits[line]
        place = max(len(raw) - num_top, 0)
        ids = np.flatnonzero(raw >= np.partition(raw, place)[place])
        ids = ids[np.argsort(-raw[ids], kind="stable")][:num_top]
        return [int(token_id) for token_id in ids]

    def _new_repetition(self, prompt_ids: Sequence[int]) -> npt.NDArray[np.float32] | None:
        penalty = self._params.repetition_penalty
        if penalty == 1.0:
            return None
        repetition = np.ones(self._vocab_size, np.float32)
        repetition[np.asarray(prompt_ids, np.int64)] = penalty
        return repetition

    def _new_bias(self) -> npt.NDArray[np.float32] | None:
        """Return the bias that params, counts and masks ask for; None when they ask for none."""
        params = self._params
        penalizes = params.presence_penalty != 0.0 or params.frequency_penalty != 0.0
        if not (penalizes or params.logit_bias or self._masked_ids):
            return None
        bias = np.zeros(self._vocab_size, np.float32)
        for token_id in {*params.logit_bias, *self._counts, *self._masked_ids}:
            bias[token_id] = self._bias_of(token_id)
        return bias

    def _bias_of(self, token_id: int) -> float:
        if token_id in self._masked_ids:
            return -math.inf
        count = self._counts[token_id]
        penalty = self._params.presence_penalty if count else 0.0
        penalty += self._params.frequency_penalty * count
        return self._params.logit_bias.get(token_id, 0.0) - penalty

    def _new_pick(self) -> RowPick | None:
        # Greedy: any will do.
        temperature = max(self._params.temperature, _MIN_TEMPERATURE) if self.needs_draw else 1.0
        if temperature == 1.0 and self._repetition is None and self._bias is None:
            return None
        return RowPick(temperature, self._repetition, self._bias)
