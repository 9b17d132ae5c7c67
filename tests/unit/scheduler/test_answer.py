from __future__ import annotations

import numpy as np
import pytest

from leptond.backend import StepResult
from leptond.backend.fake import END_OF_TURN
from leptond.backend.picking import pick_candidates
from leptond.errors import InvariantViolation
from leptond.scheduler.answer import AnswerWriter
from leptond.text import Tokenizer
from leptond.types import (
    FinishReason,
    GenerationRequest,
    SamplingParams,
    StopConditions,
    TokenChunk,
)
from tests.unit.scheduler.rig import GREEDY

VOCAB = 259
STOPS = frozenset({END_OF_TURN})


def writer(
    tokenizer: Tokenizer | None,
    *,
    max_tokens: int = 100,
    stop_strings: tuple[str, ...] = (),
    sampling: SamplingParams = GREEDY,
    min_tokens: int = 0,
    num_top_logprobs: int | None = None,
) -> AnswerWriter:
    request = GenerationRequest(
        "r",
        (1, 2, 3),
        sampling,
        StopConditions(max_tokens, STOPS, stop_strings, min_tokens),
        num_top_logprobs=num_top_logprobs,
    )
    return AnswerWriter(request, tokenizer, max_tokens=max_tokens, vocab_size=VOCAB)


def result_of(answer: AnswerWriter, token_id: int) -> StepResult:
    """A step's result whose best candidate is `token_id`, processed as the answer asks."""
    logits = np.zeros((1, VOCAB), np.float32)
    logits[0, token_id] = 9.0
    return pick_candidates(logits, [answer.pick()])


def feed(answer: AnswerWriter, token_ids: bytes | list[int]) -> list[TokenChunk]:
    chunks = []
    for token_id in token_ids:
        assert answer.finish_reason is None, "it goes on after its end"
        result = result_of(answer, token_id)
        chunks.append(answer.accept(result, 0, int(result.candidate_ids[0, 0])))
    return chunks


def text(chunks: list[TokenChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_without_a_tokenizer_chunks_carry_ids_and_no_text():
    answer = writer(None, max_tokens=2)
    assert feed(answer, b"hi") == [TokenChunk((104,), ""), TokenChunk((105,), "")]
    assert answer.finish_reason is FinishReason.LENGTH


def test_a_plain_greedy_answer_asks_for_raw_logits(tokenizer: Tokenizer):
    assert writer(tokenizer).pick() is None


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(temperature=0.7),
        SamplingParams(temperature=0.0, repetition_penalty=1.2),
        SamplingParams(temperature=0.0, presence_penalty=0.5),
        SamplingParams(temperature=0.0, frequency_penalty=0.5),
        SamplingParams(temperature=0.0, logit_bias={3: 4.0}),
    ],
)
def test_everything_else_is_processed_by_the_engine(sampling: SamplingParams):
    assert writer(None, sampling=sampling).pick() is not None


def test_text_holds_whole_characters_only(tokenizer: Tokenizer):
    chunks = feed(writer(tokenizer), "é!".encode())
    assert [chunk.text for chunk in chunks] == ["", "é", "!"]


def test_a_stop_token_is_in_the_ids_and_not_in_the_text(tokenizer: Tokenizer):
    answer = writer(tokenizer)
    chunks = feed(answer, [*b"hi", END_OF_TURN])
    assert chunks[-1].token_ids == (END_OF_TURN,)
    assert text(chunks) == "hi"
    assert answer.finish_reason is FinishReason.STOP
    assert answer.matched_stop == END_OF_TURN


def test_a_character_that_is_never_completed_is_replaced(tokenizer: Tokenizer):
    assert text(feed(writer(tokenizer), [0xC3, END_OF_TURN])) == "�"
    assert text(feed(writer(tokenizer, max_tokens=1), [0xC3])) == "�"


def test_a_stop_string_ends_the_text_before_itself(tokenizer: Tokenizer):
    answer = writer(tokenizer, stop_strings=("cd",))
    chunks = feed(answer, b"abcd")
    assert text(chunks) == "ab"
    assert answer.finish_reason is FinishReason.STOP
    assert answer.matched_stop == "cd"


def test_text_that_may_become_a_stop_string_is_held_back(tokenizer: Tokenizer):
    chunks = feed(writer(tokenizer, stop_strings=("cd",)), b"abce")
    assert [chunk.text for chunk in chunks] == ["a", "b", "", "ce"]


def test_what_was_held_back_leaves_at_the_end(tokenizer: Tokenizer):
    answer = writer(tokenizer, stop_strings=("cd",), max_tokens=3)
    assert text(feed(answer, b"abc")) == "abc"
    assert answer.finish_reason is FinishReason.LENGTH
    answer = writer(tokenizer, stop_strings=("cd",))
    assert text(feed(answer, [*b"abc", END_OF_TURN])) == "abc"


def test_a_stop_string_in_the_last_token_counts_before_the_length(tokenizer: Tokenizer):
    answer = writer(tokenizer, stop_strings=("c",), max_tokens=3)
    assert text(feed(answer, b"abc")) == "ab"
    assert answer.finish_reason is FinishReason.STOP
    assert answer.matched_stop == "c"


def test_a_stop_string_completed_by_the_rest_counts_before_the_length(tokenizer: Tokenizer):
    answer = writer(tokenizer, stop_strings=("b�",), max_tokens=3)
    assert text(feed(answer, [*b"ab", 0xC3])) == "a"
    assert answer.finish_reason is FinishReason.STOP
    assert answer.matched_stop == "b�"


def test_a_stop_string_completed_by_the_rest_is_left_out_after_a_stop_token(tokenizer: Tokenizer):
    answer = writer(tokenizer, stop_strings=("b�",))
    assert text(feed(answer, [*b"ab", 0xC3, END_OF_TURN])) == "a"
    assert answer.matched_stop == END_OF_TURN


def test_stop_tokens_are_not_sampled_before_min_tokens(tokenizer: Tokenizer):
    answer = writer(tokenizer, min_tokens=2)
    feed(answer, [END_OF_TURN, END_OF_TURN, END_OF_TURN])
    assert answer.finish_reason is FinishReason.STOP
    assert answer.num_sampled == 3


def test_logprobs_come_with_each_token(tokenizer: Tokenizer):
    (chunk,) = feed(writer(tokenizer, num_top_logprobs=2), b"a")
    (logprob,) = chunk.logprobs
    assert logprob.token == b"a"
    assert logprob.logprob == pytest.approx(-np.log1p(258 * np.exp(-9.0)), abs=1e-5)
    assert len(logprob.top) == 2


def test_logprobs_without_a_tokenizer_are_a_bug():
    with pytest.raises(InvariantViolation):
        feed(writer(None, num_top_logprobs=0), b"a")
