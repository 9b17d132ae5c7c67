"""Turns the logits of one request into its tokens and its text, and says when it ends.

`AnswerText` does it for engines that choose the tokens themselves, `AnswerWriter` for those that
answer with logits. The only module of the scheduler that reads `leptond.text`. Thread: the worker;
one per request, made when its turn comes and kept when it loses its slot.
"""

from __future__ import annotations

from leptond.backend import RowPick, StepResult
from leptond.errors import InvariantViolation
from leptond.text import Detokenizer, Sampler, StopMatcher, Tokenizer
from leptond.types import (
    FinishReason,
    GenerationRequest,
    ScoringRequest,
    TokenChunk,
    TokenLogprob,
)

__all__ = ["AnswerScorer", "AnswerText", "AnswerWriter"]

_MAX_SCORED_POSITIONS = 64
"""Positions of a row and a run whose logits are wanted: of a vocabulary of 49 152, 12 MiB."""


class AnswerText:
    """Detokenises the tokens of one answer and watches for its end.

    Args:
        tokenizer: None leaves every chunk's text empty.
        max_tokens: most tokens to take: the request's own bound, cut to the context.

    Attributes:
        num_sampled: tokens taken so far.
        finish_reason: why the answer ended; None while it goes on.
        matched_stop: the stop string or stop token that ended it.
    """

    __slots__ = (
        "_detokenizer",
        "_matcher",
        "_max_tokens",
        "_stop_token_ids",
        "finish_reason",
        "matched_stop",
        "num_sampled",
    )

    def __init__(
        self, request: GenerationRequest, tokenizer: Tokenizer | None, *, max_tokens: int
    ) -> None:
        stop = request.stop
        self._max_tokens = max_tokens
        self._stop_token_ids = stop.stop_token_ids
        self._detokenizer = (
            None
            if tokenizer is None
            else Detokenizer(tokenizer, skip_special=request.skip_special, continues_text=True)
        )
        self._matcher = StopMatcher(stop.stop_strings) if stop.stop_strings else None
        self.num_sampled = 0
        self.finish_reason: FinishReason | None = None
        self.matched_stop: str | int | None = None

    def take(self, token_id: int, logprobs: tuple[TokenLogprob, ...] = ()) -> TokenChunk:
        """Take the next token of the answer.

        Sets `finish_reason` and `matched_stop` when the token ends it.
        """
        self.num_sampled += 1
        if token_id in self._stop_token_ids:
            self.finish_reason = FinishReason.STOP
            self.matched_stop = token_id
            return TokenChunk((token_id,), self._rest(), logprobs)
        text = "" if self._detokenizer is None else self._detokenizer.push(token_id)
        if text and self._matcher is not None:
            text, matched = self._matcher.push(text)
            if matched is not None:
                self.finish_reason = FinishReason.STOP
                self.matched_stop = matched
        if self.finish_reason is None and self.num_sampled >= self._max_tokens:
            self.finish_reason = FinishReason.LENGTH
            text += self._rest()
        return TokenChunk((token_id,), text, logprobs)

    def end(self) -> str:
        """End the answer because the engine did; return the text that was held back."""
        self.finish_reason = FinishReason.STOP
        return self._rest()

    def _rest(self) -> str:
        """The text held back so far: an unfinished character, the start of a stop string."""
        text = "" if self._detokenizer is None else self._detokenizer.flush()
        if self._matcher is None:
            return text
        text, matched = self._matcher.push(text)
        if matched is None:
            return text + self._matcher.flush()
        if self.matched_stop is None:
            self.finish_reason = FinishReason.STOP
            self.matched_stop = matched
        return text


class AnswerWriter(AnswerText):
    """Samples besides.

    Args:
        request, tokenizer, max_tokens: as for `AnswerText`.
        vocab_size: of the model, padding included.
    """

    __slots__ = ("_num_top_logprobs", "_sampler", "_tokenizer")

    is_given = False

    def __init__(
        self,
        request: GenerationRequest,
        tokenizer: Tokenizer | None,
        *,
        max_tokens: int,
        vocab_size: int,
    ) -> None:
        super().__init__(request, tokenizer, max_tokens=max_tokens)
        self._tokenizer = tokenizer
        self._num_top_logprobs = request.num_top_logprobs
        # The likeliest of unprocessed logits needs no sampler: the engine says it, for a whole
        # step at once.
        self._sampler = (
            None
            if _is_plain_greedy(request)
            else Sampler(request.sampling, request.stop, request.prompt_ids, vocab_size)
        )

    def bound(self, first: int, last: int) -> int:
        """Where a piece `[first, last)` of the known tokens had better end; here nowhere else."""
        del first
        return last

    def num_logits(self, first: int, last: int, num_known: int) -> int:
        """Of how many last positions of a piece the logits are wanted."""
        del first
        return int(last == num_known)

    def pick(self) -> RowPick | None:
        """How the engine is to process the row's logits in the next step."""
        return None if self._sampler is None else self._sampler.pick_for_step()

    def accept(
        self, result: StepResult, line: int, likeliest: int, num_lines: int = 1
    ) -> TokenChunk:
        """Sample the next token from line `line` of a step's result: the only one of a row.

        `likeliest` is `result.candidate_ids[line, 0]`: the caller has read it for all lines. Sets
        `finish_reason` and `matched_stop` when the token ends the answer.
        """
        del num_lines
        sampler = self._sampler
        token_id = likeliest if sampler is None else sampler.choose(result, line)
        logprobs: tuple[TokenLogprob, ...] = ()
        if self._num_top_logprobs is not None:
            logprobs = (self._logprob(result, line, token_id, self._num_top_logprobs),)
        return self.take(token_id, logprobs)

    def _logprob(self, result: StepResult, line: int, token_id: int, num_top: int) -> TokenLogprob:
        if self._sampler is None or self._tokenizer is None:
            raise InvariantViolation("logprobs without a sampler or a tokenizer")
        return self._sampler.logprob(result, line, token_id, num_top, self._tokenizer)


class AnswerScorer:
    """Scores an answer that is given, in the place of an `AnswerWriter`.

    Each token is scored once: what was scored before a slot was lost is not wanted again.

    Args:
        tokenizer: for the bytes of tokens.

    Attributes:
        finish_reason: STOP once all tokens are scored.
    """

    __slots__ = ("_num_scored", "_request", "_tokenizer", "finish_reason", "matched_stop")

    is_given = True

    def __init__(self, request: ScoringRequest, tokenizer: Tokenizer | None) -> None:
        self._request = request
        self._tokenizer = tokenizer
        self._num_scored = 0
        self.finish_reason: FinishReason | None = None
        self.matched_stop: str | int | None = None

    def bound(self, first: int, last: int) -> int:
        """Where a piece had better end, so that its logits stay few: each is a row of floats."""
        return min(last, max(first, self._next_position) + _MAX_SCORED_POSITIONS)

    def num_logits(self, first: int, last: int, num_known: int) -> int:
        """Of how many last positions of a piece the logits are wanted."""
        del num_known
        return max(0, last - max(first, self._next_position))

    def pick(self) -> RowPick | None:
        """Logits are wanted as the model gives them."""
        return None

    def accept(
        self, result: StepResult, line: int, likeliest: int, num_lines: int = 1
    ) -> TokenChunk:
        """Score the next `num_lines` tokens by the lines from `line` on."""
        del likeliest
        begin = self._num_scored
        token_ids = self._request.target_ids[begin : begin + num_lines]
        self._num_scored += num_lines
        if self._num_scored == len(self._request.target_ids):
            self.finish_reason = FinishReason.STOP
        scores = [
            self._score(result, line + place, token_id) for place, token_id in enumerate(token_ids)
        ]
        return TokenChunk(token_ids, "", tuple(scores))

    @property
    def _next_position(self) -> int:
        """The position whose logits are those of the next token to score."""
        return len(self._request.context_ids) - 1 + self._num_scored

    def _score(self, result: StepResult, line: int, token_id: int) -> TokenLogprob:
        normalizer = float(result.raw_log_normalizer[line])
        num_top = self._request.num_top_logprobs
        best = zip(
            result.candidate_ids[line, :num_top].tolist(),
            result.candidate_logits[line, :num_top].tolist(),
            strict=True,
        )
        top = tuple(
            TokenLogprob(other, logit - normalizer, self._bytes(other)) for other, logit in best
        )
        logprob = float(result.logits[line, token_id]) - normalizer
        return TokenLogprob(token_id, logprob, self._bytes(token_id), top)

    def _bytes(self, token_id: int) -> bytes:
        return b"" if self._tokenizer is None else self._tokenizer.token_bytes(token_id)


def _is_plain_greedy(request: GenerationRequest) -> bool:
    sampling = request.sampling
    return (
        sampling.is_greedy
        and sampling.repetition_penalty == 1.0
        and sampling.presence_penalty == 0.0
        and sampling.frequency_penalty == 0.0
        and not sampling.logit_bias
        and request.stop.min_tokens == 0
        and request.num_top_logprobs is None
    )
