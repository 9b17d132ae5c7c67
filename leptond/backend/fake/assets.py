"""The text assets of a fake model: a tokenizer of bytes, a chat template, generation defaults.

The same three files as those of an imported model (`leptond.checkpoint.text_assets`), so that a
fake model takes the real way through tokenizer, template and detokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path

from leptond.backend.fake.engine import OPTIONS_FILE
from leptond.backend.fake.language import CONTROL_TOKENS, END_OF_TEXT, END_OF_TURN
from leptond.backend.fake.options import FakeOptions

__all__ = ["CHAT_TEMPLATE", "write_fake_assets", "write_fake_options"]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML, as many small models have it."""


def write_fake_assets(directory: Path, options: FakeOptions | None = None) -> None:
    """Write `tokenizer.json`, `chat_template.jinja` and `generation.json` into `directory`.

    Needs the `tokenizers` library. The directory must exist.
    """
    options = options or FakeOptions()
    _write_json(directory / "tokenizer.json", _tokenizer())
    path = directory / "chat_template.jinja"
    path.write_text(CHAT_TEMPLATE, encoding="utf-8", newline="")
    generation = {
        "max_positions": options.context,
        "add_bos": False,
        "add_eos": False,
        "bos_token_id": END_OF_TEXT,
        "eos_token_id": END_OF_TURN,
        "stop_token_ids": [END_OF_TEXT, END_OF_TURN],
        "bos_token": CONTROL_TOKENS[END_OF_TEXT],
        "eos_token": CONTROL_TOKENS[END_OF_TURN],
        "pad_token_id": END_OF_TEXT,
        "unknown_token_id": None,
        "sampling": {},
    }
    _write_json(directory / "generation.json", json.dumps(generation, indent=2))


def write_fake_options(directory: Path, options: FakeOptions) -> None:
    """Write `fake.json`, the engine's one file, into the existing `directory` of a variant."""
    _write_json(directory / OPTIONS_FILE, json.dumps(options.to_mapping(), indent=2))


def _write_json(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def _tokenizer() -> str:
    """A byte-level BPE without merges: the token of a byte is its value."""
    # Imported here: a store, a test or a benchmark that has no text needs no tokenizer.
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415

    vocabulary = {character: byte for byte, character in enumerate(_byte_alphabet())}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in CONTROL_TOKENS.values()]
    )
    return str(tokenizer.to_str(pretty=True))


def _byte_alphabet() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary, in order of the bytes.

    Printable Latin-1 stands for itself, the rest for the characters from U+0100 on: the mapping of
    GPT-2, which `tokenizers.pre_tokenizers.ByteLevel` applies.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
