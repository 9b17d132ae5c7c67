from __future__ import annotations

import json

import jinja2.sandbox
import pytest
from tokenizers import Tokenizer

from leptond.backend.fake import (
    CHAT_TEMPLATE,
    END_OF_TEXT,
    END_OF_TURN,
    START_OF_TURN,
    VOCAB_SIZE,
    FakeOptions,
    write_fake_assets,
)
from leptond.checkpoint.text_assets import GenerationDefaults


@pytest.fixture
def directory(tmp_path):
    write_fake_assets(tmp_path, FakeOptions(context=333))
    return tmp_path


@pytest.fixture
def tokenizer(directory):
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


@pytest.mark.parametrize(
    "text", ["Hello", "", " é½ ٣ 日本 😀\n\t\x00", "don't  split\r\n", "\u2028"]
)
def test_any_text_is_its_bytes_and_comes_back(tokenizer, text):
    ids = tokenizer.encode(text).ids
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text


def test_every_byte_is_a_token(tokenizer):
    for byte in range(256):
        assert tokenizer.decode([byte, byte]) == bytes([byte, byte]).decode(errors="replace")
    assert tokenizer.get_vocab_size() == VOCAB_SIZE


def test_control_tokens_are_single_tokens_unless_their_text_is_meant(tokenizer):
    text = "<|im_start|>a<|im_end|><|endoftext|>"
    assert tokenizer.encode(text).ids == [START_OF_TURN, ord("a"), END_OF_TURN, END_OF_TEXT]
    assert tokenizer.decode([ord("a"), END_OF_TURN]) == "a"
    tokenizer.encode_special_tokens = True
    assert tokenizer.encode(text).ids == list(text.encode())


def test_the_chat_template_renders_turns(directory):
    template = (directory / "chat_template.jinja").read_text()
    assert template == CHAT_TEMPLATE
    rendered = (
        jinja2.sandbox.ImmutableSandboxedEnvironment()
        .from_string(template)
        .render(messages=[{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    )
    assert rendered == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_the_generation_defaults_have_the_format_of_imported_models(directory):
    stored = json.loads((directory / "generation.json").read_text())
    defaults = GenerationDefaults(**stored)
    assert set(stored) == set(GenerationDefaults.__dataclass_fields__)
    assert defaults.max_positions == 333
    assert defaults.eos_token_id == END_OF_TURN
    assert defaults.eos_token == "<|im_end|>"
    assert set(defaults.stop_token_ids) == {END_OF_TEXT, END_OF_TURN}
