from __future__ import annotations

import json
import math
import re

import pytest

from leptond.backend import SessionKind
from leptond.backend.fake import FakeOptions, parse_fake_model


def test_a_name_alone_is_a_model_with_defaults():
    assert parse_fake_model("parrot") == ("parrot", FakeOptions())


def test_options_are_read_in_their_own_types():
    name, options = parse_fake_model(
        "parrot:kind=batch,tokens_per_s=50,slots=4, context = 512 ,stall_s=1e-3"
    )
    assert name == "parrot"
    assert options == FakeOptions(
        SessionKind.BATCH, tokens_per_s=50.0, slots=4, context=512, stall_s=0.001
    )
    assert isinstance(options.tokens_per_s, float)
    assert isinstance(options.slots, int)


def test_options_go_through_json_unchanged():
    options = FakeOptions(SessionKind.BATCH, tokens_per_s=2.5, seed=(1 << 60) + 1)
    assert FakeOptions.from_mapping(json.loads(json.dumps(options.to_mapping()))) == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a fake model needs a name: NAME[:option=value,...], not ''"),
        (":slots=1", "a fake model needs a name"),
        ("a:slots", "option 'slots' of fake model a has no value: write slots=..."),
        ("a:slots=1,slots=2", "option 'slots' of fake model a is given twice"),
        ("a:speed=1", "a fake model has no option 'speed'; it has context, crash_at,"),
        ("a:slots=0", "option 'slots' must be a whole number of at least 1, not '0'"),
        ("a:slots=many", "option 'slots' must be a whole number of at least 1, not 'many'"),
        ("a:slots=1.5", "option 'slots' must be a whole number of at least 1, not '1.5'"),
        ("a:tokens_per_s=-1", "option 'tokens_per_s' must be a number of at least 0, not '-1'"),
        ("a:tokens_per_s=nan", "option 'tokens_per_s' must be a number of at least 0, not 'nan'"),
        ("a:tokens_per_s=inf", "option 'tokens_per_s' must be a number of at least 0, not 'inf'"),
        ("a:mean_sentences=1001", "of at least 0 and at most 1000, not '1001'"),
        ("a:kind=stream", "option 'kind' must be step or batch, not 'stream'"),
    ],
)
def test_a_bad_option_is_told_with_what_it_may_be(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_fake_model(text)


@pytest.mark.parametrize("value", [1.5, True, None, [4], math.nan, math.inf])
def test_a_value_of_another_type_is_refused(value):
    with pytest.raises(ValueError, match="option 'slots' must be a whole number"):
        FakeOptions.from_mapping({"slots": value})


def test_a_whole_float_is_a_whole_number():
    assert FakeOptions.from_mapping({"slots": 3.0}).slots == 3
