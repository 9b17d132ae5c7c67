"""Tokenizer, template and defaults of the real model against its reference."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from tests.fixtures.smollm2 import smollm2_reference

REFERENCE = smollm2_reference()


@pytest.fixture(scope="module")
def tokenizer(smollm2) -> Tokenizer:
    return Tokenizer.from_str(smollm2.text.tokenizer_json)


@pytest.mark.parametrize("row", REFERENCE["tokenization"], ids=lambda row: ascii(row["text"]))
def test_text_becomes_the_same_ids(tokenizer, row):
    tokenizer.encode_special_tokens = True
    assert tokenizer.encode(row["text"]).ids == row["ids_user_text"]
    tokenizer.encode_special_tokens = False
    assert tokenizer.encode(row["text"]).ids == row["ids_trusted_text"]


def test_prompts_become_the_same_ids(tokenizer):
    for case in REFERENCE["completions"]:
        assert tokenizer.encode(case["prompt"]).ids == case["prompt_ids"]
    for case in REFERENCE["chats"]:
        assert tokenizer.encode(case["rendered"]).ids == case["prompt_ids"]


def test_ids_become_the_same_text(tokenizer):
    for case in REFERENCE["completions"] + REFERENCE["chats"]:
        text = tokenizer.decode(case["greedy_ids"], skip_special_tokens=False)
        assert text == case["greedy_text"]


def test_generation_defaults(smollm2):
    generation = smollm2.text.generation
    assert generation.max_positions == 8192
    assert not generation.add_bos
    assert (generation.bos_token, generation.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert generation.stop_token_ids == (0, 2)
    assert "You are a helpful AI assistant named SmolLM" in smollm2.text.chat_template
