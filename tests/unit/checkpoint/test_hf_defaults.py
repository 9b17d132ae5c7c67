from __future__ import annotations

import json

import pytest

from leptond.checkpoint import (
    EncoderDefaults,
    LanguageStyle,
    Seq2SeqDefaults,
    TextAssets,
    read_encoder_defaults,
    write_encoder_defaults,
)
from leptond.errors import InvariantViolation, ModelFailed

ENCODER = EncoderDefaults(
    architecture="bert",
    max_tokens=256,
    num_special_single=2,
    truncation_side="left",
    prompts={"query": "query: "},
    default_prompt="query",
    dimensions=384,
    pooling="mean",
    normalize=True,
    labels=("a", "b"),
    problem_type="multi_label",
    activation="sigmoid",
    is_cross_encoder=True,
    has_token_types=True,
)
SEQ2SEQ = Seq2SeqDefaults(
    architecture="marian",
    max_tokens=512,
    num_special_single=1,
    vocab_size=100,
    decoder_start_token_id=99,
    eos_token_id=0,
    pad_token_id=99,
    unknown_token_id=None,
    max_target_tokens=512,
    suppressed_token_ids=(99,),
    beam_size=4,
    length_penalty=0.6,
    language_style=LanguageStyle.TARGET_IN_SOURCE,
    languages={"fra": ">>fra<<"},
    source_language="en",
)


@pytest.mark.parametrize("defaults", [ENCODER, SEQ2SEQ])
def test_what_is_written_is_read_again(tmp_path, defaults):
    write_encoder_defaults(defaults, tmp_path)
    read = read_encoder_defaults(tmp_path)
    assert read == defaults
    assert type(read) is type(defaults)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "decoder"}, "kind: one of encoder, seq2seq"),
        ({"dimension": 3}, "dimension: not known"),
        ({"max_tokens": "256"}, "max_tokens: '256'"),
        ({"max_tokens": True}, "max_tokens: True"),
        ({"normalize": 1}, "normalize: 1"),
        ({"labels": ["a", 1]}, "labels: "),
        ({"labels": "ab"}, "labels: 'ab'"),
        ({"prompts": {"a": None}}, "prompts: "),
        ({"prompts": []}, "prompts: "),
        ({"pooling": None}, "pooling: None"),
    ],
)
def test_a_field_that_cannot_be_is_named_with_its_file(tmp_path, changes, message):
    write_encoder_defaults(ENCODER, tmp_path)
    path = tmp_path / "encoder.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))
    with pytest.raises(ModelFailed, match=message) as caught:
        read_encoder_defaults(tmp_path)
    assert str(path) in caught.value.message


def test_a_language_style_that_is_not_known_is_refused(tmp_path):
    write_encoder_defaults(SEQ2SEQ, tmp_path)
    path = tmp_path / "encoder.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"language_style": "both"}))
    with pytest.raises(ModelFailed, match="language_style: 'both'"):
        read_encoder_defaults(tmp_path)


def test_missing_fields_are_all_named(tmp_path):
    fields = {"kind": "encoder", "architecture": "bert", "max_tokens": 5}
    (tmp_path / "encoder.json").write_text(json.dumps(fields))
    with pytest.raises(ModelFailed, match=r"dimensions, .*pooling.*: missing"):
        read_encoder_defaults(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_file_that_is_no_object_is_refused(tmp_path, text):
    (tmp_path / "encoder.json").write_text(text)
    with pytest.raises(ModelFailed, match=r"encoder\.json"):
        read_encoder_defaults(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFailed, match=r"encoder\.json"):
        read_encoder_defaults(tmp_path)


def test_text_assets_say_the_longest_input():
    assert TextAssets("{}", encoder=ENCODER).max_tokens == 256
    with pytest.raises(InvariantViolation):
        _ = TextAssets("{}").max_tokens
