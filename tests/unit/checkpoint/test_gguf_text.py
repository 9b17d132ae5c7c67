from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer

from leptond.checkpoint import write_text_assets
from leptond.errors import InvalidRequest, UnsupportedCapability
from tests.fixtures.tiny_gguf import CONTROL_TOKENS, TinyLlama, tokens

THE, IN_SPACED = (tokens(TinyLlama()).index(token) for token in ("the", "Ġin"))


def tokenizer_of(checkpoint) -> Tokenizer:
    return Tokenizer.from_str(checkpoint.text.tokenizer_json)


def test_merges_are_applied_and_undone(open_tiny):
    tokenizer = tokenizer_of(open_tiny())
    assert tokenizer.encode("the in").ids == [THE, IN_SPACED]
    text = "Où vas-tu ?\n\t3.5% — 日本"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_control_tokens_are_parsed_only_where_that_is_wanted(open_tiny):
    tokenizer = tokenizer_of(open_tiny())
    assert tokenizer.encode("<|im_end|>").ids == [2]
    tokenizer.encode_special_tokens = True
    forged = tokenizer.encode("<|im_end|>").ids
    assert len(forged) == len("<|im_end|>")
    assert tokenizer.decode(forged) == "<|im_end|>"


def test_user_defined_tokens_are_text_with_an_entry_of_its_own(open_tiny):
    model = TinyLlama()
    kinds = [3 if name in CONTROL_TOKENS else 1 for name in tokens(model)]
    kinds[-1] = 4
    tokenizer = tokenizer_of(open_tiny(metadata={"tokenizer.ggml.token_type": kinds}))
    tokenizer.encode_special_tokens = True
    assert tokenizer.encode(f"a{tokens(model)[-1]}b").ids[1] == model.vocab_size - 1


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("default", "I'm, b 12345 x", ["I", "'", "m", ",", "Ġb", "Ġ", "123", "45", "Ġx"]),
        ("gpt-2", "I'm 1234 x", ["I", "'m", "Ġ1234", "Ġx"]),
        ("smollm", "I'm 123 x", ["I", "'m", "Ġ", "1", "2", "3", "Ġx"]),
        ("qwen2", "I'M 12\n\n  x", ["I", "'M", "Ġ", "1", "2", "ĊĊ", "Ġ", "Ġx"]),
        ("llama-bpe", "I'M 1234\n\n  x", ["I", "'M", "Ġ", "123", "4", "ĊĊ", "Ġ", "Ġx"]),
        ("llama-bpe", "a/b?!\n (c)", ["a", "/b", "?!Ċ", "Ġ(", "c", ")"]),
        ("llama-bpe", "x  \n", ["x", "ĠĠĊ"]),
    ],
)
def test_the_name_decides_the_pieces(open_tiny, pre, text, pieces):
    tokenizer = tokenizer_of(open_tiny(metadata={"tokenizer.ggml.pre": pre}))
    assert [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)] == pieces


def test_qwen2_composes_its_text(open_tiny):
    tokenizer = tokenizer_of(open_tiny(metadata={"tokenizer.ggml.pre": "qwen2"}))
    assert tokenizer.encode("e\N{COMBINING ACUTE ACCENT}").ids == tokenizer.encode("é").ids


def test_llama3_takes_a_whole_token_before_any_merge(open_tiny):
    # "thei" is a token that no merge makes.
    names = tokens(TinyLlama())
    names[-1] = "thei"
    changed = {"tokenizer.ggml.tokens": names, "tokenizer.ggml.add_bos_token": False}
    for pre, ids in (("llama-bpe", [299]), ("qwen2", [THE, names.index("i")])):
        tokenizer = tokenizer_of(open_tiny(metadata={**changed, "tokenizer.ggml.pre": pre}))
        assert tokenizer.encode("thei").ids == ids


@pytest.mark.parametrize(
    ("key", "value"),
    [("tokenizer.ggml.pre", "brand-new"), ("tokenizer.ggml.model", "t5")],
)
def test_an_unknown_tokenizer_is_refused_by_name(open_tiny, key, value):
    with pytest.raises(UnsupportedCapability, match=rf"m\.gguf: {key} = '{value}'"):
        open_tiny(metadata={key: value})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.merges", ["t zz"], "'t zz' does not join two tokens into a third"),
        ("tokenizer.ggml.merges", ["th"], "'th' does not join two tokens into a third"),
        ("tokenizer.ggml.tokens", ["a"] * 300, "a token occurs twice"),
        ("tokenizer.ggml.tokens", [str(n) for n in range(301)], "301 tokens, the embedding has"),
        ("tokenizer.ggml.token_type", [1] * 299, "one known kind per token"),
        ("tokenizer.ggml.token_type", [9] * 300, "one known kind per token"),
        ("tokenizer.ggml.eos_token_id", 300, "300 is beyond the 300 tokens"),
    ],
)
def test_contradictions_are_named(open_tiny, key, value, message):
    with pytest.raises(InvalidRequest, match=rf"m\.gguf: {key}: .*{message}"):
        open_tiny(metadata={key: value})


@pytest.mark.parametrize(
    ("metadata", "ids"),
    [
        ({}, [THE]),
        ({"tokenizer.ggml.add_bos_token": True}, [0, THE]),
        ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}, [0, THE, 2]),
        ({"tokenizer.ggml.pre": "llama-bpe"}, [0, THE]),
        ({"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": False}, [THE]),
    ],
)
def test_a_prompt_is_framed_as_the_file_says(open_tiny, metadata, ids):
    checkpoint = open_tiny(metadata=metadata)
    tokenizer = tokenizer_of(checkpoint)
    assert tokenizer.encode("the").ids == ids
    assert tokenizer.encode("the", add_special_tokens=False).ids == [THE]
    assert checkpoint.text.generation.add_bos == (ids[0] == 0)
    assert checkpoint.text.generation.add_eos == (ids[-1] == 2)


def test_stop_tokens_are_named_ones_and_well_known_control_tokens(open_tiny):
    generation = open_tiny().text.generation
    assert generation.bos_token_id == 0
    assert generation.eos_token_id == 2
    assert (generation.bos_token, generation.eos_token) == ("<|begin|>", "<|im_end|>")
    assert generation.stop_token_ids == (2,)
    named = {"tokenizer.ggml.eos_token_id": 5, "tokenizer.ggml.eot_token_id": 7}
    assert open_tiny(metadata=named).text.generation.stop_token_ids == (2, 5, 7)


def test_a_model_may_have_no_bos_and_no_template(open_tiny):
    absent = {"tokenizer.ggml.bos_token_id": None, "tokenizer.chat_template": None}
    text = open_tiny(metadata=absent).text
    assert text.generation.bos_token_id is None
    assert text.generation.bos_token == ""
    assert text.chat_template is None


def test_recommended_sampling_is_kept(open_tiny):
    recommended = {"general.sampling.temp": 0.5, "general.sampling.top_k": 40}
    sampling = open_tiny(metadata=recommended).text.generation.sampling
    assert sampling == {"temperature": 0.5, "top_k": 40.0}


def test_three_files_hold_the_text_assets(open_tiny, tmp_path):
    checkpoint = open_tiny()
    write_text_assets(checkpoint.text, tmp_path)
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("the").ids == [THE]
    # Byte for byte: a template's line ends are part of the prompt.
    template = (tmp_path / "chat_template.jinja").read_bytes()
    assert template == b"{{ messages[0]['content'] }}\r\n"
    generation = json.loads((tmp_path / "generation.json").read_text(encoding="utf-8"))
    assert generation["max_positions"] == 128
    assert generation["stop_token_ids"] == [2]
    assert generation["eos_token"] == "<|im_end|>"


def test_no_template_file_without_a_template(open_tiny, tmp_path):
    directory = tmp_path / "assets"
    directory.mkdir()
    write_text_assets(open_tiny(metadata={"tokenizer.chat_template": None}).text, directory)
    assert sorted(path.name for path in directory.iterdir()) == [
        "generation.json",
        "tokenizer.json",
    ]


def test_a_template_that_is_left_behind_is_logged_by_name(open_tiny, caplog):
    with caplog.at_level("INFO", "leptond.checkpoint"):
        open_tiny(metadata={"tokenizer.chat_template.tool_use": "{{ tools }}"})
    assert "key=tokenizer.chat_template.tool_use" in caplog.text
