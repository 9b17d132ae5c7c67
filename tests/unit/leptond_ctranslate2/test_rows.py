from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from leptond.backend import SAMPLING_OPTIONS, BatchRow
from leptond.errors import InvalidRequest
from leptond.types import SamplingParams
from leptond_ctranslate2.generator_session import GeneratorSession
from leptond_ctranslate2.rows import DecodeOptions
from leptond_ctranslate2.translator_session import SourceEndings, TranslatorSession

DEFAULTS = {field.name: getattr(SamplingParams(), field.name) for field in fields(SamplingParams)}
OTHER: dict[str, Any] = {
    "temperature": 0.5,
    "top_k": 3,
    "top_p": 0.5,
    "min_p": 0.1,
    "seed": 1,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {3: 1.0},
}


def read(**options):
    return DecodeOptions.from_row(BatchRow([1], options=options))


def test_without_options_decoding_is_greedy_and_streamed():
    options = read(task="generate")
    assert options == DecodeOptions()
    assert options.is_streamed
    assert options.engine_arguments(100)["sampling_topk"] == 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"colour": "red"}, "options.colour"),
        ({"beam_size": 0}, "options.beam_size"),
        ({"beam_size": True}, "options.beam_size"),
        ({"num_hypotheses": 1.0}, "options.num_hypotheses"),
        ({"max_tokens": -1}, "options.max_tokens"),
        ({"min_tokens": None}, "options.min_tokens"),
        ({"beam_size": 2, "num_hypotheses": 3}, "options.num_hypotheses"),
        ({"beam_size": 2, "sampling": SamplingParams()}, "options.sampling"),
        ({"sampling": SamplingParams(temperature=-1)}, "sampling.temperature"),
        ({"sampling": SamplingParams(top_p=0)}, "sampling.top_p"),
        ({"sampling": SamplingParams(top_k=-1)}, "sampling.top_k"),
        ({"sampling": SamplingParams(repetition_penalty=0)}, "sampling.repetition_penalty"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options, field):
    with pytest.raises(InvalidRequest) as refusal:
        read(**options)
    assert refusal.value.field == field


@pytest.mark.parametrize("session", [GeneratorSession, TranslatorSession])
@pytest.mark.parametrize("name", list(DEFAULTS))
def test_every_sampling_option_is_honoured_or_refused_by_name(session, name):
    options = read(sampling=replace(SamplingParams(), **{name: OTHER[name]}))
    if name in session.sampling_options:
        options.check_sampling(session.sampling_options)
    else:
        with pytest.raises(InvalidRequest, match=f"does not honour {name} here") as refusal:
            options.check_sampling(session.sampling_options)
        assert refusal.value.field == f"sampling.{name}"


@pytest.mark.parametrize("session", [GeneratorSession, TranslatorSession])
def test_what_is_declared_is_known(session):
    assert session.sampling_options <= SAMPLING_OPTIONS


@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p", "seed"])
def test_greedy_decoding_needs_no_choice_among_many(name):
    options = read(sampling=replace(SamplingParams(temperature=0), **{name: OTHER[name]}))
    options.check_sampling(GeneratorSession.sampling_options)
    assert options.engine_arguments(100)["sampling_topk"] == 1


def test_min_tokens_need_a_session_that_honours_them():
    options = read(min_tokens=3)
    options.check_sampling(GeneratorSession.sampling_options)
    with pytest.raises(InvalidRequest, match="min_tokens is not honoured"):
        options.check_sampling(TranslatorSession.sampling_options)


@pytest.mark.parametrize(
    "changes", [{"min_tokens": 3}, {"sampling": SamplingParams(repetition_penalty=1.1)}]
)
def test_logprobs_that_would_not_be_the_models_own_are_refused(changes):
    read(**changes).check_sampling(SAMPLING_OPTIONS)
    assert not read(**changes).has_plain_scores
    options = read(logprobs=True, **changes)
    with pytest.raises(InvalidRequest, match="would not be the model's own"):
        options.check_sampling(SAMPLING_OPTIONS)


def test_sampling_becomes_the_engines_arguments():
    sampling = SamplingParams(temperature=0.7, top_k=1000, top_p=0.9, repetition_penalty=1.2)
    arguments = read(sampling=sampling).engine_arguments(vocab_size=100)
    assert arguments["sampling_topk"] == 100  # more than there are is an error of the engine
    assert arguments["sampling_topp"] == 0.9
    assert arguments["sampling_temperature"] == 0.7
    assert arguments["repetition_penalty"] == 1.2


def test_a_repetition_penalty_is_kept_when_decoding_is_greedy():
    sampling = SamplingParams(temperature=0, repetition_penalty=1.2)
    assert read(sampling=sampling).engine_arguments(9)["repetition_penalty"] == 1.2


def test_several_random_answers_are_no_stream():
    options = read(num_hypotheses=3, sampling=SamplingParams())
    assert not options.is_streamed


@pytest.mark.parametrize(
    ("source", "has_content"),
    [
        (["</s>"], False),
        (["<s>"], False),
        (["a"], True),
        (["<s>", "</s>"], False),
        (["<s>", "a"], True),
        (["a", "</s>"], True),
        (["</s>", "de"], False),
        (["a", "</s>", "de"], True),
        (["<s>", "</s>", "de"], False),
        (["de", "</s>"], True),
    ],
)
def test_a_source_is_empty_by_the_engines_own_rule(source, has_content):
    assert SourceEndings("<s>", "</s>").has_content(source) is has_content
