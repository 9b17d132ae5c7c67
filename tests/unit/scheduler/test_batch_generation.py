from __future__ import annotations

from collections.abc import Sequence

import pytest

from leptond.backend import BatchRow, Capabilities, EmittedChunk, SessionKind, SessionOptions
from leptond.backend.fake import FakeOptions, expected_tokens
from leptond.errors import (
    BackendFault,
    InvalidRequest,
    InvariantViolation,
    RequestTooLarge,
    UnsupportedCapability,
)
from leptond.scheduler import SchedulerOptions
from leptond.scheduler.answer import AnswerText
from leptond.scheduler.batch_limits import BatchLimits
from leptond.text import Tokenizer
from leptond.types import FinishReason, SamplingParams, StopConditions, Task
from tests.unit.scheduler.batch_rig import BATCH, BatchRig, Emit, text, token_ids

LANGUAGE = FakeOptions(mean_sentences=0)
PROMPT = tuple(b"Once upon a time")


def truth(prompt: Sequence[int], max_tokens: int) -> list[int]:
    return expected_tokens(prompt, max_tokens, LANGUAGE)


def spoken(prompt: Sequence[int], max_tokens: int) -> str:
    return bytes(truth(prompt, max_tokens)).decode()


def test_a_text_comes_token_by_token_with_its_phases(tokenizer: Tokenizer):
    options = {**BATCH.to_mapping(), "tokens_per_s": 10}
    rig = BatchRig(FakeOptions.from_mapping(options), tokenizer=tokenizer)
    sink = rig.generate(PROMPT, 6)
    rig.run()
    assert token_ids(sink) == truth(PROMPT, 6)
    assert text(sink) == spoken(PROMPT, 6)
    assert len(sink.items) == len(set(sink.times)) == 6
    assert sink.summary.finish_reason is FinishReason.LENGTH
    assert sink.summary.matched_stop is None
    assert (sink.summary.usage.prompt_tokens, sink.summary.usage.completion_tokens) == (16, 6)
    queue, prefill, decode = sink.summary.phases
    assert (queue.name, prefill.name, decode.name) == ("queue", "prefill", "decode")
    assert queue.end == prefill.start
    assert prefill.end == decode.start == sink.times[0]
    assert decode.end == sink.times[-1]


def test_texts_of_different_bounds_share_a_run_and_end_each_at_its_own():
    rig = BatchRig()
    sinks = [rig.generate(8, max_tokens) for max_tokens in (5, 8, 7)]
    rig.run()
    assert [len(token_ids(sink)) for sink in sinks] == [5, 8, 7]
    assert len(rig.session.runs) == 1
    assert [row.options["max_tokens"] for row in rig.session.runs[0]] == [8, 8, 8]


def test_prompts_of_unlike_lengths_run_apart():
    rig = BatchRig()
    for length in (16, 1, 17, 32):
        rig.generate(length, 2)
    rig.run()
    assert rig.session.lengths == [[16, 1], [17, 32]]


def test_an_answer_is_cut_to_the_context():
    rig = BatchRig()
    sink = rig.generate(60, 40)
    rig.run()
    assert len(token_ids(sink)) == 4
    assert rig.session.runs[0][0].options["max_tokens"] == 4
    assert sink.summary.finish_reason is FinishReason.LENGTH


def test_a_stop_string_ends_a_text_and_is_not_in_it(tokenizer: Tokenizer):
    rig = BatchRig(tokenizer=tokenizer)
    whole = spoken(PROMPT, 30)
    stop = whole[10:13]
    sink = rig.generate(PROMPT, stop=StopConditions(30, stop_strings=(stop,)))
    mate = rig.generate(PROMPT, 30)
    rig.run()
    assert text(sink) == whole[: whole.index(stop)]
    assert sink.summary.finish_reason is FinishReason.STOP
    assert sink.summary.matched_stop == stop
    assert text(mate) == whole


def test_a_stop_token_ends_a_text_and_is_told_to_the_engine():
    rig = BatchRig()
    tokens = truth(PROMPT, 20)
    stop = tokens[9]
    sink = rig.generate(PROMPT, stop=StopConditions(20, stop_token_ids=frozenset({stop, 3})))
    rig.run()
    assert token_ids(sink) == tokens[: tokens.index(stop) + 1]
    assert sink.summary.matched_stop == stop
    assert rig.session.runs[0][0].options["stop_token_ids"] == tuple(sorted((3, stop)))
    assert rig.session.num_interrupts == 1


def script_tokens(rig: BatchRig, *chunks: EmittedChunk) -> list[bool]:
    said: list[bool] = []

    def run(rows: Sequence[BatchRow], emit: Emit) -> None:
        said.extend(emit(0, chunk) for chunk in chunks)

    rig.session.script = run
    return said


def test_what_was_held_back_leaves_when_the_engine_ends(tokenizer: Tokenizer):
    rig = BatchRig(tokenizer=tokenizer)
    sink = rig.generate(PROMPT, stop=StopConditions(9, stop_strings=("bcd",)))
    script_tokens(rig, EmittedChunk(tuple(b"ab")), EmittedChunk(tuple(b"c"), is_final=True))
    rig.run()
    assert [chunk.text for chunk in sink.items] == ["a", "", "", "bc"]
    assert sink.summary.finish_reason is FinishReason.STOP
    assert sink.summary.matched_stop is None


def test_a_stop_string_that_is_complete_only_with_what_was_held_back(tokenizer: Tokenizer):
    rig = BatchRig(tokenizer=tokenizer)
    sink = rig.generate(PROMPT, stop=StopConditions(9, stop_strings=("\N{REPLACEMENT CHARACTER}",)))
    script_tokens(rig, EmittedChunk((ord("a"), 0xE2)), EmittedChunk(is_final=True))
    rig.run()
    assert text(sink) == "a"
    assert sink.summary.matched_stop == "\N{REPLACEMENT CHARACTER}"


def test_tokens_behind_the_end_are_dropped():
    rig = BatchRig()
    sink = rig.generate(PROMPT, 2)
    said = script_tokens(rig, EmittedChunk((1,)), EmittedChunk((2, 3)), EmittedChunk((4,)))
    rig.run()
    assert token_ids(sink) == [1, 2]
    assert said == [True, False, False]


def test_an_engine_that_ends_without_a_token_has_answered_nothing():
    rig = BatchRig()
    sink = rig.generate(PROMPT, 2)
    script_tokens(rig, EmittedChunk(is_final=True))
    rig.run()
    assert sink.items == []
    assert [phase.name for phase in sink.summary.phases] == ["queue", "prefill"]


def test_a_cancelled_text_says_so():
    rig = BatchRig()
    sink = rig.generate(PROMPT, 20)
    rig.session.on_emit = lambda index: sink.cancel() if len(sink.items) == 3 else None
    rig.run()
    assert sink.summary.finish_reason is FinishReason.CANCELLED
    assert sink.summary.usage.completion_tokens == 3


def test_log_probabilities_are_the_engines(tokenizer: Tokenizer):
    rig = BatchRig(tokenizer=tokenizer)
    sink = rig.generate(PROMPT, 3, num_top_logprobs=0)
    rig.run()
    assert rig.session.runs[0][0].options["logprobs"] is True
    for chunk in sink.items:
        (logprob,) = chunk.logprobs
        assert logprob.token_id == chunk.token_ids[0]
        assert logprob.logprob < 0
        assert logprob.token == bytes(chunk.token_ids)
        assert logprob.top == ()


def test_an_engine_that_keeps_its_log_probabilities_fails_who_asked(tokenizer: Tokenizer):
    rig = BatchRig(tokenizer=tokenizer)
    sink = rig.generate(PROMPT, 3, num_top_logprobs=0)
    script_tokens(rig, EmittedChunk((1,)))
    rig.run()
    assert isinstance(sink.failure, BackendFault)
    assert "log-probability" in sink.failure.message


def test_a_text_that_breaks_ends_itself_only(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    rig = BatchRig(tokenizer=tokenizer)
    sinks = [rig.generate(PROMPT, 3) for _ in range(2)]

    def take(*_: object) -> None:
        raise RuntimeError("no text")

    monkeypatch.setattr(AnswerText, "take", take)
    rig.session.on_emit = lambda index: monkeypatch.undo()
    rig.run()
    assert isinstance(sinks[0].failure, InvariantViolation)
    assert "answer broken" in caplog.text
    assert token_ids(sinks[1]) == truth(PROMPT, 3)


@pytest.mark.parametrize(
    ("option", "sampling"),
    [
        ("temperature", SamplingParams(temperature=0.5)),
        ("top_k", SamplingParams(top_k=4)),
        ("top_p", SamplingParams(top_p=0.5)),
        ("min_p", SamplingParams(min_p=0.5)),
        ("seed", SamplingParams(seed=1)),
        ("repetition_penalty", SamplingParams(temperature=0.0, repetition_penalty=1.1)),
        ("presence_penalty", SamplingParams(presence_penalty=0.1)),
        ("frequency_penalty", SamplingParams(frequency_penalty=0.1)),
        ("logit_bias", SamplingParams(logit_bias={3: 1.0})),
    ],
)
def test_an_option_that_the_engine_does_not_honour_is_refused_by_name(
    option: str, sampling: SamplingParams
):
    honoured = {"temperature"} - {option}
    rig = BatchRig(sampling_options=frozenset(honoured))
    with pytest.raises(UnsupportedCapability, match=option) as refusal:
        rig.generate(sampling=sampling)
    assert refusal.value.field == option
    BatchRig(sampling_options=frozenset({"temperature", option})).generate(sampling=sampling)


def test_other_options_of_the_choice_are_refused_too(tokenizer: Tokenizer):
    rig = BatchRig(tokenizer=tokenizer, sampling_options=frozenset({"temperature", "top_logprobs"}))
    with pytest.raises(UnsupportedCapability, match="min_tokens"):
        rig.generate(stop=StopConditions(5, min_tokens=2))
    with pytest.raises(UnsupportedCapability, match="honour logprobs"):
        rig.generate(num_top_logprobs=0)
    with pytest.raises(UnsupportedCapability, match="top_logprobs"):
        rig.generate(num_top_logprobs=1)


def test_what_changes_nothing_for_greedy_choice_is_no_option():
    rig = BatchRig(sampling_options=frozenset({"temperature"}))
    filtered = SamplingParams(temperature=0.0, top_k=3, top_p=0.4, min_p=0.1, seed=9)
    rig.generate(sampling=filtered)
    rig.generate()
    rig.run()
    assert len(rig.session.runs) == 1


def test_sampled_texts_keep_their_options():
    rig = BatchRig()
    sampling = SamplingParams(top_k=3, seed=9)
    rig.generate(sampling=sampling, stop=StopConditions(5, min_tokens=2))
    rig.run()
    assert rig.session.runs[0][0].options == {
        "task": "generate",
        "beam_size": 1,
        "num_hypotheses": 1,
        "max_tokens": 8,
        "sampling": sampling,
        "stop_token_ids": (),
        "min_tokens": 2,
    }


def test_what_can_never_be_generated_is_refused():
    rig = BatchRig()
    with pytest.raises(RequestTooLarge):
        rig.generate(64)
    rig.generate(63)
    with pytest.raises(InvalidRequest, match="no tokens"):
        rig.generate(())
    with pytest.raises(UnsupportedCapability, match="stop_strings"):
        rig.generate(stop=StopConditions(3, stop_strings=("x",)))


def limits_of(kind: SessionKind, *tasks: Task, max_running: int = 0) -> BatchLimits:
    capabilities = Capabilities(
        kind, frozenset(tasks), ("cpu",), max_batch_rows=8, max_context_tokens=32, vocab_size=9
    )
    options = SchedulerOptions(max_running=max_running, batch_token_budget=77)
    return BatchLimits.resolve(
        "m", capabilities, SessionOptions(6, 99), options, has_tokenizer=True
    )


def test_limits_are_what_all_sides_allow():
    limits = limits_of(SessionKind.BATCH, Task.CHAT)
    assert (limits.bounds.max_rows, limits.bounds.token_budget) == (6, 77)
    assert limits.max_context_tokens == 32
    assert limits_of(SessionKind.BATCH, max_running=3).bounds.max_rows == 3


def test_a_step_model_is_refused():
    with pytest.raises(UnsupportedCapability, match="whole calls"):
        limits_of(SessionKind.STEP, Task.GENERATE)


def test_an_encoder_generates_nothing():
    rig = BatchRig()
    rig.admission._limits = limits_of(SessionKind.BATCH, Task.EMBED)
    with pytest.raises(UnsupportedCapability, match="does not generate"):
        rig.generate()
