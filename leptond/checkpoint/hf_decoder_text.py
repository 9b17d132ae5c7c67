"""Text assets of a decoder: tokenizer.json, chat template and `GenerationDefaults`.

tokenizer.json            taken as it is
chat_template.jinja       the chat template, else `chat_template` of tokenizer_config.json
tokenizer_config.json     BOS and EOS as text
generation_config.json    what ends a text, and recommended sampling
"""

from __future__ import annotations

from typing import Any

from leptond.checkpoint.architecture import DecoderArchitecture
from leptond.checkpoint.hf_directory import HfDirectory
from leptond.checkpoint.hf_tokenizer import HfTokenizer, special_token
from leptond.checkpoint.json_facts import JsonFacts
from leptond.checkpoint.stop_tokens import STOP_TOKENS
from leptond.checkpoint.text_assets import GenerationDefaults, TextAssets
from leptond.errors import InvalidRequest, UnsupportedCapability

__all__ = ["read_decoder_text"]

_NO_TOKEN = -1
_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


def read_decoder_text(directory: HfDirectory, architecture: DecoderArchitecture) -> TextAssets:
    """Read the text assets.

    Raises:
        InvalidRequest: a file is missing, damaged or contradicts another.
        UnsupportedCapability: several chat templates, none of them the default.
    """
    tokenizer = HfTokenizer.read(directory, architecture.vocab_size)
    config = directory.facts("tokenizer_config.json")
    template = directory.text("chat_template.jinja")
    if template is None:
        template = _template(config)
    generation = _read_generation(directory, config, tokenizer, architecture)
    return TextAssets(tokenizer.definition, template, generation)


def _template(config: JsonFacts) -> str | None:
    templates = config.values.get("chat_template")
    if not isinstance(templates, list):
        return config.text("chat_template", "") or None
    facts = [JsonFacts(config.path, template, "chat_template.") for template in templates]
    by_name = {fact.text("name"): fact.text("template") for fact in facts}
    if "default" not in by_name:
        raise UnsupportedCapability(
            f"{config.path}: chat_template: {', '.join(by_name)}: none is called 'default'"
        )
    return by_name["default"]


def _read_generation(
    directory: HfDirectory,
    config: JsonFacts,
    tokenizer: HfTokenizer,
    architecture: DecoderArchitecture,
) -> GenerationDefaults:
    facts = directory.facts("generation_config.json")
    ends = _ids(facts, "eos_token_id", tokenizer) or _ids(
        directory.config, "eos_token_id", tokenizer
    )
    eos_id = _named(config, "eos_token", tokenizer)
    if eos_id is None:
        eos_id = min(ends, default=None)
    bos_id = _named(config, "bos_token", tokenizer)
    if bos_id is None:
        bos_id = min(_ids(directory.config, "bos_token_id", tokenizer), default=None)
    stops = {*ends, *_stop_tokens(tokenizer)} | ({eos_id} if eos_id is not None else set())
    around = tokenizer.ids_around_nothing()
    adds_bos = bos_id is not None and around[:1] == [bos_id]
    adds_eos = eos_id is not None and around[-1:] == [eos_id] and around != [bos_id]
    pads = _ids(facts, "pad_token_id", tokenizer) or _ids(
        directory.config, "pad_token_id", tokenizer
    )
    return GenerationDefaults(
        max_positions=architecture.max_positions,
        add_bos=bos_id is not None and config.boolean("add_bos_token", default=adds_bos),
        add_eos=eos_id is not None and config.boolean("add_eos_token", default=adds_eos),
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        stop_token_ids=tuple(sorted(stops)),
        bos_token=_text(tokenizer, bos_id),
        eos_token=_text(tokenizer, eos_id),
        pad_token_id=min(pads, default=None),
        unknown_token_id=_named(config, "unk_token", tokenizer),
        sampling={name: facts.number(name) for name in _SAMPLING if name in facts},
    )


def _named(config: JsonFacts, key: str, tokenizer: HfTokenizer) -> int | None:
    """Return the id of the special token that tokenizer_config.json names, if it names one."""
    token = special_token(config, key)
    if token is None:
        return None
    token_id = tokenizer.id_of(token)
    if token_id is None:
        raise config.invalid(key, "the tokenizer has no such token")
    return token_id


def _ids(facts: JsonFacts, key: str, tokenizer: HfTokenizer) -> list[int]:
    """Return the token ids under `key`, which holds one, a list, or nothing (-1 in old files)."""
    value: Any = facts.values.get(key)
    ids = value if isinstance(value, list) else [] if value in (None, _NO_TOKEN) else [value]
    for token_id in ids:
        if not tokenizer.has_id(token_id):
            raise InvalidRequest(f"{facts.path}: {key}: token {token_id!r} is not in the tokenizer")
    return ids


def _stop_tokens(tokenizer: HfTokenizer) -> list[int]:
    added = tokenizer.engine.get_added_tokens_decoder()
    return [
        token_id
        for token_id, token in added.items()
        if token.special and token.content in STOP_TOKENS
    ]


def _text(tokenizer: HfTokenizer, token_id: int | None) -> str:
    return "" if token_id is None else str(tokenizer.engine.id_to_token(token_id))
