"""Model names as callers write them."""

from __future__ import annotations

import pytest

from leptond.errors import InvalidRequest
from leptond.models import ModelName


@pytest.mark.parametrize(
    ("text", "model", "variant"),
    [
        ("smollm2-135m-instruct", "smollm2-135m-instruct", None),
        ("smollm2:int8", "smollm2", "int8"),
        ("A.b_c-9:x.Y", "A.b_c-9", "x.Y"),
        ("a" * 128, "a" * 128, None),
    ],
)
def test_a_name_is_a_model_and_perhaps_a_variant(text, model, variant):
    parsed = ModelName.parse(text)
    assert (parsed.model, parsed.variant, str(parsed)) == (model, variant, text)


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", ":b", "a:b:c", "../etc", "a/b", ".h", "-x", "a b", "a\x00", "é", "a" * 129],
)
def test_a_name_that_is_none_is_refused_with_its_field(text):
    with pytest.raises(InvalidRequest, match="not a model name") as caught:
        ModelName.parse(text, field="input.model")
    assert caught.value.field == "input.model"


def test_a_long_name_does_not_fill_the_error():
    with pytest.raises(InvalidRequest) as caught:
        ModelName.parse("x" * 10_000_000)
    assert len(caught.value.message) < 400
