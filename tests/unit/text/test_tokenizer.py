"""The tokenizer: both ways to read control tokens, exact bytes, sizes, bad text."""

from __future__ import annotations

import dataclasses
import json

import pytest

from leptond.errors import InvalidRequest, ModelFailed, RequestTooLarge
from leptond.text import PromptSegment, RenderedPrompt, Tokenizer
from tests.unit.text.tiny import (
    CONTROL,
    GENERATION,
    IDS,
    SENTENCEPIECE_GENERATION,
    added_token,
    byte_level_definition,
    byte_level_tokenizer,
    sentencepiece_definition,
    sentencepiece_tokenizer,
    word_piece_tokenizer,
)

START, END, THINK = IDS["<|im_start|>"], IDS["<|im_end|>"], IDS["<think>"]


def test_a_raw_prompt_parses_control_tokens_unless_it_is_told_not_to():
    tokenizer = byte_level_tokenizer()
    assert tokenizer.encode("<|im_start|>a<think>") == [START, ord("a"), THINK]
    assert tokenizer.encode("<|im_end|>", parse_special=False) == list(b"<|im_end|>")
    assert tokenizer.encode("<think>", parse_special=False) == [THINK]  # text, not control


def test_merges_are_applied():
    tokenizer = byte_level_tokenizer()
    assert tokenizer.encode("hello") == [258, ord("o")]


def test_truncation_and_padding_of_the_file_are_not_obeyed():
    assert len(byte_level_tokenizer().encode("abcdefgh" * 10)) == 80
    assert byte_level_tokenizer().encode("a") == [ord("a")]
    assert byte_level_tokenizer().encode("") == []


def test_bos_is_added_as_the_model_was_trained_or_as_asked():
    assert byte_level_tokenizer().encode("a") == [ord("a")]
    assert byte_level_tokenizer().encode("a", add_bos=True) == [START, ord("a")]
    adds = byte_level_tokenizer(add_bos=True)
    assert adds.encode("a") == [START, ord("a")]
    assert adds.encode("a", add_bos=False) == [ord("a")]
    assert byte_level_tokenizer(add_bos=True, bos_token_id=None).encode("a") == [ord("a")]


def test_what_is_known_of_the_vocabulary():
    tokenizer = byte_level_tokenizer()
    assert tokenizer.vocab_size == 256 + 4 + 8
    assert tokenizer.bos_id == START
    assert tokenizer.stop_ids == {IDS["<|endoftext|>"], END}
    assert not tokenizer.add_bos
    assert dict(tokenizer.control_tokens) == {token: IDS[token] for token in CONTROL}
    assert tokenizer.is_special(END)
    assert not tokenizer.is_special(THINK)
    assert not tokenizer.is_special(10**9)


def test_token_bytes_are_exact():
    tokenizer = byte_level_tokenizer()
    assert [tokenizer.token_bytes(byte) for byte in range(256)] == [
        bytes([byte]) for byte in range(256)
    ]
    assert tokenizer.token_bytes(258) == b"hell"
    assert tokenizer.token_bytes(259) == b" \xc2"
    assert tokenizer.token_bytes(END) == b"<|im_end|>"
    assert tokenizer.token_bytes(tokenizer.vocab_size) == b""
    assert tokenizer.token_bytes(-1) == b""


def test_decoding_skips_control_tokens_on_request_and_replaces_broken_characters():
    tokenizer = byte_level_tokenizer()
    ids = [START, *"é".encode(), END, 0xC3, ord("a")]
    assert tokenizer.decode(ids) == "é\ufffda"
    assert tokenizer.decode(ids, skip_special=False) == "<|im_start|>é<|im_end|>\ufffda"


@pytest.mark.parametrize("token_id", [-1, 268, 10**12])
def test_an_id_beyond_the_vocabulary_is_refused(token_id):
    with pytest.raises(InvalidRequest, match=f"token {token_id} is not in the vocabulary of 268"):
        byte_level_tokenizer().decode([1, token_id])


@pytest.mark.parametrize("parse_special", [True, False])
def test_nul_and_odd_characters_survive_and_lone_surrogates_are_refused(parse_special):
    tokenizer = byte_level_tokenizer()
    text = "a\0b\u2028\U0001f600\U000d0001\U000dffff\U0010ffff\ufeff"
    assert tokenizer.decode(tokenizer.encode(text, parse_special=parse_special)) == text
    with pytest.raises(InvalidRequest, match=r"U\+DFFF, a lone surrogate"):
        tokenizer.encode("a\udfff", parse_special=parse_special)


def test_a_rendered_prompt_may_name_control_tokens_of_the_model_only():
    tokenizer = byte_level_tokenizer()
    prompt = RenderedPrompt((PromptSegment("<|im_end|>", END), PromptSegment("<|im_end|>")))
    assert tokenizer.encode_rendered(prompt) == [END, *b"<|im_end|>"]
    with pytest.raises(InvalidRequest, match="no control token of this model"):
        tokenizer.encode_rendered(RenderedPrompt((PromptSegment("<|im_end|>", START),)))


def test_text_that_can_never_fit_is_refused_by_its_bytes():
    tokenizer = byte_level_tokenizer()  # the longest token has 13 bytes
    tokenizer.check_text_size("x" * 130, 10, "input.text")
    tokenizer.check_text_size("é" * 65, 10, "input.text")
    with pytest.raises(RequestTooLarge, match=r"input\.text has 131 bytes or more; .* 10 tokens"):
        tokenizer.check_text_size("x" * 131, 10, "input.text")
    with pytest.raises(RequestTooLarge) as caught:
        tokenizer.check_text_size("é" * 66, 10, "input.text")
    assert caught.value.field == "input.text"
    with pytest.raises(InvalidRequest, match=r"input\.text holds U\+D800"):
        tokenizer.check_text_size("a\ud800", 10, "input.text")


def test_an_unknown_word_may_be_long():
    word_piece_tokenizer().check_text_size("x" * 1024, 1, "input.text")


def test_sentencepiece_bytes_and_spaces():
    tokenizer = sentencepiece_tokenizer()
    ids = tokenizer.encode("hi hé")
    assert ids == [1, 263, 262, 3 + 0xC3, 3 + 0xA9]
    assert [tokenizer.token_bytes(i) for i in ids] == [b"<s>", b" hi", b" h", b"\xc3", b"\xa9"]
    assert tokenizer.decode(ids) == "hi hé"
    assert tokenizer.decode(ids, skip_special=False) == "<s> hi hé"


def test_sentencepiece_that_adds_no_space_strips_none():
    definition = sentencepiece_definition()
    definition["decoder"]["decoders"].pop()
    tokenizer = Tokenizer(json.dumps(definition), SENTENCEPIECE_GENERATION)
    assert tokenizer.decode([263]) == " hi"


@pytest.mark.parametrize(
    ("decoder", "text"),
    [
        ({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}, "hi<0x41>"),
        ({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"}, " hi<0x41>"),
        (
            {
                "type": "Sequence",
                "decoders": [
                    {"type": "ByteFallback"},
                    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"},
                ],
            },
            "hiA",
        ),
    ],
)
def test_metaspace_decoders(decoder, text):
    tokenizer = sentencepiece_tokenizer(decoder=decoder)
    assert tokenizer.decode([263, 3 + ord("A")]) == text


def test_word_pieces_are_joined():
    tokenizer = word_piece_tokenizer()
    ids = tokenizer.encode("playing you xyz")
    assert ids == [4, 5, 6, 1]
    assert tokenizer.decode(ids, skip_special=False) == "playing you[UNK]"
    assert tokenizer.vocab_size == 7


@pytest.mark.parametrize(
    "decoder",
    [
        None,
        {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
        {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"Regex": "a+"}, "content": " "},
                {"type": "ByteFallback"},
            ],
        },
        {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Strip", "content": " ", "start": 2, "stop": 0},
            ],
        },
    ],
)
def test_an_unknown_decoder_fails_the_load(decoder):
    with pytest.raises(ModelFailed, match=r"tokenizer\.json: decoder: "):
        sentencepiece_tokenizer(decoder=decoder)


@pytest.mark.parametrize(("text", "token_id"), [("<|im_start|>", START), ("<|im_end|>", END)])
def test_bos_and_stop_tokens_are_out_of_reach_even_when_the_file_calls_them_text(text, token_id):
    definition = byte_level_definition()
    for token in definition["added_tokens"]:
        token["special"] = False
    tokenizer = Tokenizer(json.dumps(definition), GENERATION)
    assert tokenizer.encode(text, parse_special=False) == list(text.encode())
    assert tokenizer.encode(text) == [token_id]
    assert tokenizer.decode([token_id]) == ""


def test_text_that_the_vocabulary_itself_turns_into_a_control_token_is_refused():
    definition = byte_level_definition()
    definition["model"]["vocab"]["STOP"] = 268
    definition["model"]["ignore_merges"] = True
    definition["added_tokens"].append(added_token(268, "STOP", special=True))
    tokenizer = Tokenizer(json.dumps(definition), GENERATION)
    assert tokenizer.encode("STOP") == [268]
    with pytest.raises(InvalidRequest, match="the text holds 'STOP'"):
        tokenizer.encode("STOP", parse_special=False)


def test_unknown_text_may_become_the_unknown_token():
    assert word_piece_tokenizer().encode("xyz", parse_special=False) == [1]


def test_the_unknown_token_of_a_unigram_vocabulary_is_found():
    definition = {
        **sentencepiece_definition(),
        "normalizer": None,
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "vocab": [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["h", -1.0], ["i", -2.0]],
            "byte_fallback": False,
        },
    }
    tokenizer = Tokenizer(json.dumps(definition), SENTENCEPIECE_GENERATION)
    assert tokenizer.encode("hxi", parse_special=False, add_bos=False) == [3, 0, 4]


def test_a_tokenizer_is_read_from_a_model_directory(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level_definition()))
    (tmp_path / "generation.json").write_text(json.dumps(dataclasses.asdict(GENERATION)))
    assert Tokenizer.load(tmp_path).encode("a") == [ord("a")]
    (tmp_path / "tokenizer.json").write_bytes(b"\xff")
    with pytest.raises(ModelFailed, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelFailed, match=r"tokenizer\.json: "):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelFailed, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_stop_tokens_that_do_not_exist_fail_the_load():
    with pytest.raises(ModelFailed, match="token 999 is not in the vocabulary"):
        byte_level_tokenizer(stop_token_ids=(999,))


def test_token_ids_with_holes_fail_the_load():
    definition = byte_level_definition()
    definition["model"]["vocab"]["x y z"] = 900
    with pytest.raises(ModelFailed, match="not consecutive"):
        Tokenizer(json.dumps(definition), GENERATION)


def test_a_text_of_the_byte_alphabet_and_a_text_outside_it():
    definition = byte_level_definition()
    definition["model"]["vocab"]["日"] = 268
    tokenizer = Tokenizer(json.dumps(definition), GENERATION)
    assert tokenizer.token_bytes(268) == "日".encode()
