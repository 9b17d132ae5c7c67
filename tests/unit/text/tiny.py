"""Tiny tokenizers, written out by hand, for tests of the text layer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from leptond.checkpoint import GenerationDefaults
from leptond.text import ChatMessage, ChatTemplate, Tokenizer
from leptond.text.vocabulary import _ALPHABET

BYTE_LETTERS = {byte: chr(letter) for letter, byte in _ALPHABET.items()}
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|system|>", "<|end|>"]
USER_DEFINED = ["<think>", "</think>"]
FIRST_ADDED = 256 + 4
IDS = {token: FIRST_ADDED + index for index, token in enumerate(CONTROL + USER_DEFINED)}

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

GENERATION = GenerationDefaults(
    max_positions=64,
    add_bos=False,
    add_eos=False,
    bos_token_id=IDS["<|im_start|>"],
    eos_token_id=IDS["<|im_end|>"],
    stop_token_ids=(IDS["<|endoftext|>"], IDS["<|im_end|>"]),
    bos_token="<|im_start|>",
    eos_token="<|im_end|>",
    pad_token_id=IDS["<|endoftext|>"],
)


def added_token(token_id: int, content: str, **flags: bool) -> dict[str, Any]:
    off = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized", "special"], False)
    return {"id": token_id, "content": content, **off, **flags}


def byte_level_definition() -> dict[str, Any]:
    """Bytes, "he", "ll", "hell", "Ġ½" cut in the middle of ½, control and user-defined tokens."""
    vocab = {BYTE_LETTERS[byte]: byte for byte in range(256)}
    half = " ½".encode()
    cut = "".join(BYTE_LETTERS[byte] for byte in half[:2])
    for token in ["he", "ll", "hell", cut]:
        vocab[token] = len(vocab)
    vocab |= IDS
    added = [
        added_token(IDS[token], token, special=True, rstrip=token == "<|end|>") for token in CONTROL
    ]
    added += [added_token(IDS[token], token) for token in USER_DEFINED]
    space = BYTE_LETTERS[ord(" ")]
    return {
        "version": "1.0",
        "truncation": {
            "direction": "Right",
            "max_length": 3,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        "padding": {
            "strategy": {"Fixed": 8},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        },
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [["h", "e"], ["l", "l"], ["he", "ll"], [space, cut.removeprefix(space)]],
        },
    }


def byte_level_tokenizer(**changes: Any) -> Tokenizer:
    """A byte-level tokenizer; `changes` are those of its `GenerationDefaults`."""
    return Tokenizer(json.dumps(byte_level_definition()), replace(GENERATION, **changes))


def sentencepiece_definition() -> dict[str, Any]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += ["▁", "h", "i", "▁h", "▁hi", "o"]
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    return {
        **byte_level_definition(),
        "added_tokens": [added_token(vocab[t], t, special=True) for t in ["<unk>", "<s>", "</s>"]],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            **byte_level_definition()["model"],
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": [["▁", "h"], ["▁h", "i"]],
        },
    }


SENTENCEPIECE_GENERATION = replace(
    GENERATION,
    add_bos=True,
    bos_token_id=1,
    eos_token_id=2,
    stop_token_ids=(2,),
    bos_token="<s>",
    eos_token="</s>",
    pad_token_id=None,
    unknown_token_id=0,
)


def sentencepiece_tokenizer(**changes: Any) -> Tokenizer:
    definition = {**sentencepiece_definition(), **changes}
    return Tokenizer(json.dumps(definition), SENTENCEPIECE_GENERATION)


def word_piece_definition() -> dict[str, Any]:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "play", "##ing", "you"]
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(vocab[token], token, special=True) for token in tokens[:4]],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }


def word_piece_tokenizer() -> Tokenizer:
    generation = replace(
        GENERATION,
        bos_token_id=None,
        eos_token_id=None,
        stop_token_ids=(),
        bos_token="",
        eos_token="",
        pad_token_id=0,
        unknown_token_id=1,
    )
    return Tokenizer(json.dumps(word_piece_definition()), generation)


def chat_template(source: str, **changes: Any) -> ChatTemplate:
    return ChatTemplate(source, byte_level_tokenizer(**changes))


def rendered(source: str, *messages: ChatMessage, **options: Any) -> str:
    """What a template makes of a chat, by default of one harmless message."""
    chat = messages or (ChatMessage("user", "Hi"),)
    return chat_template(source).render(chat, **options).text
