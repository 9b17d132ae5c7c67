"""What is advised from measurements; and what the measurement is made of."""

from __future__ import annotations

from leptond.models.measuring import Measurement, advise
from leptond.models.sample_texts import SAMPLE_TEXTS

DEFAULT = Measurement("m:float32", "ctranslate2", 100.0)
FAST = Measurement("m:int8", "ctranslate2", 250.0, cosine=0.9951, reference="m:float32")


def test_a_measurement_says_what_it_found():
    assert str(DEFAULT) == "measured m:float32 (ctranslate2): 100 texts/s"
    assert str(FAST) == (
        "measured m:int8 (ctranslate2): 250 texts/s, mean cosine 0.9951 to m:float32"
    )
    failed = Measurement("m:int8", "other", problem="no such engine")
    assert str(failed) == "not measured m:int8 (other): no such engine"


def test_nothing_is_advised_without_a_choice():
    failed = Measurement("m:int8", "other", problem="no such engine")
    assert advise([], "m:float32") == ""
    assert advise([DEFAULT], "m:float32") == ""
    assert advise([DEFAULT, failed], "m:float32") == ""
    assert advise([DEFAULT, FAST], "m:gone") == ""


def test_the_fastest_is_advised_by_its_full_name():
    assert advise([DEFAULT, FAST], "m:float32") == (
        "m:int8 is 2.50 times as fast as m:float32, the default: ask for it by its full name"
    )
    assert (
        advise([DEFAULT, FAST], "m:int8") == "m:int8, the default, is the fastest on this processor"
    )


def test_a_fast_variant_with_other_vectors_is_not_recommended():
    odd = Measurement("m:int8", "ctranslate2", 250.0, cosine=0.97, reference="m:float32")
    assert "its vectors differ" in advise([DEFAULT, odd], "m:float32")


def test_short_and_longer_texts_are_measured():
    assert len(set(SAMPLE_TEXTS)) == 32
    lengths = sorted(len(text.split()) for text in SAMPLE_TEXTS)
    assert lengths[0] == 2
    assert lengths[-1] > 80
