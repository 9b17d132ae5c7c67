from __future__ import annotations

from dataclasses import replace

import pytest

from leptond.telemetry.totals import InferenceTotals, to_ms
from leptond.types import Phase, PhaseName, Usage


def test_the_first_token_comes_when_the_first_prefill_ends(record):
    assert record.time_to_first_token_s == 6.0


def test_the_tokens_after_the_first_share_the_decode_time(record):
    assert record.time_per_output_token_s == 1.0


def test_a_preempted_request_counts_its_first_prefill_and_its_last_decode(record):
    names = [PhaseName.PREFILL, PhaseName.DECODE, PhaseName.QUEUE, PhaseName.PREFILL]
    phases = tuple(Phase(name, at, at + 1.0) for at, name in enumerate([*names, PhaseName.DECODE]))
    again = replace(record, phases=phases)
    assert again.time_to_first_token_s == 1.0
    assert again.time_per_output_token_s == 1.0  # 4 s for 4 tokens


@pytest.mark.parametrize("usage", [None, Usage(7, 0)])
def test_without_a_sampled_token_there_is_no_time_to_it(record, usage):
    silent = replace(record, usage=usage)
    assert silent.time_to_first_token_s is None
    assert silent.time_per_output_token_s is None


def test_a_single_token_has_no_time_per_further_token(record):
    assert replace(record, usage=Usage(7, 1)).time_per_output_token_s is None


def test_an_inference_without_prefill_has_no_first_token(record):
    only = replace(record, phases=(Phase(PhaseName.QUEUE, 1.0, 2.0),))
    assert only.time_to_first_token_s is None
    assert (only.start, only.end) == (1.0, 2.0)


def test_totals_of_no_inference_are_empty():
    assert InferenceTotals().describe() == {}


def test_totals_of_one_inference_name_its_tokens_and_phases(record):
    totals = InferenceTotals()
    totals.add(record)
    assert totals.describe() == {
        "model": "tiny",
        "prompt_tokens": 7,
        "cached_tokens": 3,
        "completion_tokens": 5,
        "finish_reason": "stop",
        "tokenize_ms": 1000.0,
        "queue_ms": 2000.0,
        "prefill_ms": 3000.0,
        "decode_ms": 4000.0,
        "deliver_ms": 5000.0,
    }


def test_totals_of_many_inferences_add_up(record):
    totals = InferenceTotals()
    totals.add(record)
    totals.add(replace(record, model="other", finish_reasons=("length", "stop")))
    described = totals.describe()
    assert described["num_inferences"] == 2
    assert described["model"] == "other,tiny"
    assert described["completion_tokens"] == 10
    assert described["finish_reason"] == "stop,length"
    assert described["queue_ms"] == 4000.0


def test_an_inference_that_failed_early_has_neither_tokens_nor_a_reason(record):
    totals = InferenceTotals()
    totals.add(replace(record, usage=None, finish_reasons=(), phases=record.phases[:1]))
    assert totals.describe() == {"model": "tiny", "tokenize_ms": 1000.0}


def test_milliseconds_keep_two_decimals():
    assert to_ms(0.0123456) == 12.35
