"""Reads tokenizer, chat template and generation defaults from GGUF metadata."""

from __future__ import annotations

import json
import logging

from leptond.checkpoint.architecture import DecoderArchitecture
from leptond.checkpoint.bpe_tokenizer import byte_level_bpe
from leptond.checkpoint.gguf_metadata import GgufMetadata
from leptond.checkpoint.pre_tokenizers import PRE_TOKENIZERS
from leptond.checkpoint.sentencepiece_tokenizer import sentencepiece_bpe
from leptond.checkpoint.stop_tokens import STOP_TOKENS
from leptond.checkpoint.text_assets import GenerationDefaults, TextAssets
from leptond.checkpoint.vocabulary import TokenKind, Vocabulary
from leptond.errors import InvalidRequest

__all__ = ["read_text_assets"]

_logger = logging.getLogger(__name__)

_SAMPLING = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
}
_STOP_KEYS = (
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
)


def read_text_assets(metadata: GgufMetadata, architecture: DecoderArchitecture) -> TextAssets:
    """Build the text assets.

    Raises:
        InvalidRequest: a key is missing or contradicts another.
        UnsupportedCapability: a kind of tokenizer or a pre-tokenizer that is not known.
    """
    vocabulary = _read_vocabulary(metadata, architecture.vocab_size)
    generation = _read_generation(metadata, vocabulary, architecture.max_positions)
    tokenizer = _read_tokenizer(metadata, vocabulary, generation)
    template = metadata.text("tokenizer.chat_template", "") or None
    for key in metadata.keys_under("tokenizer.chat_template."):
        _logger.info("chat template not imported key=%s path=%s", key, metadata.path)
    return TextAssets(json.dumps(tokenizer, ensure_ascii=False), template, generation)


def _read_vocabulary(metadata: GgufMetadata, vocab_size: int) -> Vocabulary:
    key = "tokenizer.ggml.tokens"
    tokens = metadata.strings(key)
    if len(tokens) > vocab_size:
        raise InvalidRequest(
            f"{metadata.path}: {key}: {len(tokens)} tokens, the embedding has {vocab_size} rows"
        )
    if len(set(tokens)) != len(tokens):
        raise InvalidRequest(f"{metadata.path}: {key}: a token occurs twice")
    # Without kinds nothing tells a control token from text, and any text could forge a turn.
    numbers = metadata.integers("tokenizer.ggml.token_type")
    if len(numbers) != len(tokens) or not {*TokenKind}.issuperset(numbers):
        raise InvalidRequest(
            f"{metadata.path}: tokenizer.ggml.token_type: one known kind per token is needed"
        )
    kinds = [TokenKind(number) for number in numbers]
    return Vocabulary(tuple(tokens), tuple(kinds))


def _read_tokenizer(
    metadata: GgufMetadata, vocabulary: Vocabulary, generation: GenerationDefaults
) -> dict[str, object]:
    model = metadata.text("tokenizer.ggml.model")
    bos = generation.bos_token_id if generation.add_bos else None
    eos = generation.eos_token_id if generation.add_eos else None
    if model == "gpt2":
        pre = metadata.text("tokenizer.ggml.pre")
        if pre not in PRE_TOKENIZERS:
            known = ", ".join(sorted(PRE_TOKENIZERS))
            raise metadata.refuse("tokenizer.ggml.pre", f"unknown pre-tokenizer (known: {known})")
        merges = metadata.strings("tokenizer.ggml.merges")
        source = f"{metadata.path}: tokenizer.ggml.merges"
        return byte_level_bpe(vocabulary, merges, PRE_TOKENIZERS[pre], bos, eos, source=source)
    if model == "llama":
        return sentencepiece_bpe(
            vocabulary,
            metadata.numbers("tokenizer.ggml.scores"),
            generation.unknown_token_id,
            bos,
            eos,
            add_space_prefix=metadata.boolean("tokenizer.ggml.add_space_prefix", default=True),
            source=f"{metadata.path}: tokenizer.ggml.scores",
        )
    raise metadata.refuse("tokenizer.ggml.model", "'gpt2' and 'llama' are supported")


def _read_generation(
    metadata: GgufMetadata, vocabulary: Vocabulary, max_positions: int
) -> GenerationDefaults:
    def token_id(key: str) -> int | None:
        if key not in metadata:
            return None
        value = metadata.integer(key)
        if value >= len(vocabulary.tokens):
            raise InvalidRequest(
                f"{metadata.path}: {key}: {value} is beyond the {len(vocabulary.tokens)} tokens"
            )
        return value

    bos_id = token_id("tokenizer.ggml.bos_token_id")
    eos_id = token_id("tokenizer.ggml.eos_token_id")
    stops = {number for key in _STOP_KEYS if (number := token_id(key)) is not None}
    stops |= {
        number
        for number, token in enumerate(vocabulary.tokens)
        if token in STOP_TOKENS and vocabulary.kinds[number] is TokenKind.CONTROL
    }
    return GenerationDefaults(
        max_positions=max_positions,
        add_bos=metadata.boolean(
            "tokenizer.ggml.add_bos_token", default=_adds_bos_by_default(metadata)
        ),
        add_eos=metadata.boolean("tokenizer.ggml.add_eos_token", default=False),
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        stop_token_ids=tuple(sorted(stops)),
        bos_token="" if bos_id is None else vocabulary.tokens[bos_id],
        eos_token="" if eos_id is None else vocabulary.tokens[eos_id],
        pad_token_id=token_id("tokenizer.ggml.padding_token_id"),
        unknown_token_id=token_id("tokenizer.ggml.unknown_token_id"),
        sampling={name: metadata.number(key) for key, name in _SAMPLING.items() if key in metadata},
    )


def _adds_bos_by_default(metadata: GgufMetadata) -> bool:
    """Say what a file without `add_bos_token` means: SentencePiece and Llama 3 add BOS."""
    if metadata.text("tokenizer.ggml.model") == "llama":
        return True
    pre = PRE_TOKENIZERS.get(metadata.text("tokenizer.ggml.pre", ""))
    return pre is not None and pre.adds_bos
