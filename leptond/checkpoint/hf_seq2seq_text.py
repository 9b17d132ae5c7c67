"""Text assets of T5, Marian and M2M-100: tokenizers, `Seq2SeqDefaults` and `GenerationDefaults`.

A tokenizer.json is taken as it is. Where a model is saved without one, it is built from its
SentencePiece files: spiece.model of T5, source.spm, target.spm and vocab.json of Marian.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from leptond.checkpoint.architecture import Seq2SeqArchitecture
from leptond.checkpoint.encoder_defaults import LanguageStyle, Seq2SeqDefaults
from leptond.checkpoint.hf_directory import HfDirectory
from leptond.checkpoint.hf_tokenizer import (
    HfTokenizer,
    max_input_tokens,
    special_token,
    truncation_side,
)
from leptond.checkpoint.json_facts import JsonFacts, read_json
from leptond.checkpoint.sentencepiece_file import SentencePieceFile
from leptond.checkpoint.text_assets import GenerationDefaults, TextAssets
from leptond.checkpoint.unigram_tokenizer import unigram, unigram_of_shared_vocabulary
from leptond.checkpoint.vocabulary import TokenKind
from leptond.errors import InvalidRequest, UnsupportedCapability

__all__ = ["read_m2m_text", "read_marian_text", "read_t5_text"]

# T5 was trained on pieces of this length, and its config files say so as `n_positions`.
_T5_TOKENS = 512
_MAX_TARGET_TOKENS = 512
_MARIAN_LANGUAGE = re.compile(r">>(.+)<<")
# "eng_Latn" of NLLB, "__en__" of M2M-100.
_M2M_LANGUAGE = re.compile(r"__(\w+)__|([a-z]{3}_[A-Z][a-z]{3})")


def read_t5_text(directory: HfDirectory, architecture: Seq2SeqArchitecture) -> TextAssets:
    """Read the text assets of T5; its task prefixes become prompts.

    Raises:
        InvalidRequest: a file is missing, damaged or contradicts another.
        UnsupportedCapability: a generation setting that is not known.
    """
    if (directory.path / "tokenizer.json").exists():
        tokenizer = HfTokenizer.read(directory, architecture.vocab_size)
    else:
        tokenizer = _t5_tokenizer(directory, architecture)
    config = directory.facts("tokenizer_config.json")
    stated = directory.config.count("n_positions", _T5_TOKENS)
    tasks = directory.config.object("task_specific_params")
    prompts = {
        name: prefix for name in tasks.values if (prefix := tasks.object(name).text("prefix", ""))
    }
    defaults = replace(
        _defaults(directory, architecture, tokenizer, max_input_tokens(config) or stated),
        prompts=prompts,
    )
    return _assets(directory, tokenizer, defaults)


def read_marian_text(directory: HfDirectory, architecture: Seq2SeqArchitecture) -> TextAssets:
    """Read the text assets of Marian: one tokenizer per side.

    Raises:
        InvalidRequest: a file is missing, damaged or contradicts another.
        UnsupportedCapability: two vocabularies, or a generation setting that is not known.
    """
    config = directory.facts("tokenizer_config.json")
    config.require_neutral({"separate_vocabs": (False,)})
    target: HfTokenizer | None = None
    if (directory.path / "tokenizer.json").exists():
        tokenizer = HfTokenizer.read(directory, architecture.vocab_size)
        if (directory.path / "target_tokenizer.json").exists():
            target = HfTokenizer.read(directory, architecture.vocab_size, "target_tokenizer.json")
    else:
        tokenizer = _marian_tokenizer(directory, architecture, "source.spm")
        target = _marian_tokenizer(directory, architecture, "target.spm")
    languages = _languages(tokenizer, _MARIAN_LANGUAGE)
    longest = max_input_tokens(config, architecture.max_positions) or _MAX_TARGET_TOKENS
    defaults = replace(
        _defaults(directory, architecture, tokenizer, longest),
        language_style=LanguageStyle.TARGET_IN_SOURCE if languages else LanguageStyle.NONE,
        languages=languages,
        source_language=config.text("source_lang", "") or None,
        target_language=config.text("target_lang", "") or None,
    )
    return _assets(directory, tokenizer, defaults, target)


def read_m2m_text(directory: HfDirectory, architecture: Seq2SeqArchitecture) -> TextAssets:
    """Read the text assets of M2M-100 or NLLB.

    Raises:
        InvalidRequest: a file is missing, damaged, contradicts another, or names no language.
        UnsupportedCapability: a generation setting that is not known.
    """
    tokenizer = HfTokenizer.read(directory, architecture.vocab_size)
    config = directory.facts("tokenizer_config.json")
    languages = _languages(tokenizer, _M2M_LANGUAGE)
    if not languages:
        raise InvalidRequest(f"{directory.path / 'tokenizer.json'}: it has no language tokens")
    longest = max_input_tokens(config, architecture.max_positions) or _MAX_TARGET_TOKENS
    defaults = replace(
        _defaults(directory, architecture, tokenizer, longest),
        language_style=LanguageStyle.SOURCE_AND_TARGET,
        languages=languages,
        source_language=config.text("src_lang", "") or None,
        target_language=config.text("tgt_lang", "") or None,
    )
    return _assets(directory, tokenizer, defaults)


def _t5_tokenizer(directory: HfDirectory, architecture: Seq2SeqArchitecture) -> HfTokenizer:
    path = directory.path / "spiece.model"
    if not path.exists():
        return HfTokenizer.read(directory, architecture.vocab_size)  # says what is missing
    model = SentencePieceFile.read(path)
    config = directory.facts("tokenizer_config.json")
    num_extra = config.integer("extra_ids", 100)
    if num_extra > architecture.vocab_size:
        raise config.invalid("extra_ids", f"the embedding has {architecture.vocab_size} rows")
    extra = [f"<extra_id_{index}>" for index in reversed(range(num_extra))]
    unknown = [i for i, piece in enumerate(model.pieces) if piece.kind is TokenKind.UNKNOWN]
    if len(unknown) != 1:
        raise InvalidRequest(f"{path}: it has {len(unknown)} unknown pieces, not one")
    definition = unigram(model, extra, unknown[0], architecture.eos_token_id)
    text = json.dumps(definition, ensure_ascii=False)
    return HfTokenizer(text, str(path), architecture.vocab_size)


def _marian_tokenizer(
    directory: HfDirectory, architecture: Seq2SeqArchitecture, name: str
) -> HfTokenizer:
    path = directory.path / "vocab.json"
    ids = _marian_ids(directory, architecture.vocab_size)
    config = directory.facts("tokenizer_config.json")
    unknown = special_token(config, "unk_token") or "<unk>"
    special_ids = (architecture.eos_token_id, architecture.pad_token_id)
    control = [
        token
        for token, token_id in ids.items()
        if token == unknown or token_id in special_ids or _MARIAN_LANGUAGE.fullmatch(token)
    ]
    if architecture.eos_token_id >= len(ids):
        raise InvalidRequest(f"{path}: the end token {architecture.eos_token_id} is missing")
    if unknown not in ids:
        raise InvalidRequest(f"{path}: the unknown token '{unknown}' is missing")
    definition = unigram_of_shared_vocabulary(
        SentencePieceFile.read(directory.path / name),
        ids,
        control,
        ids[unknown],
        architecture.eos_token_id,
    )
    text = json.dumps(definition, ensure_ascii=False)
    return HfTokenizer(text, str(directory.path / name), None)


def _marian_ids(directory: HfDirectory, vocab_size: int) -> Mapping[str, int]:
    path = directory.path / "vocab.json"
    ids = JsonFacts(path, read_json(path)).values
    if not all(type(token_id) is int for token_id in ids.values()) or sorted(ids.values()) != list(
        range(len(ids))
    ):
        raise InvalidRequest(f"{path}: ids from 0 on without a hole are needed")
    if len(ids) > vocab_size:
        raise InvalidRequest(f"{path}: {len(ids)} tokens, the embedding has {vocab_size} rows")
    return ids


def _languages(tokenizer: HfTokenizer, pattern: re.Pattern[str]) -> dict[str, str]:
    """Return the control tokens that name a language, by its code."""
    found = {}
    for token in tokenizer.engine.get_added_tokens_decoder().values():
        if match := pattern.fullmatch(token.content):
            found[next(group for group in match.groups() if group)] = token.content
    return dict(sorted(found.items()))


def _defaults(
    directory: HfDirectory,
    architecture: Seq2SeqArchitecture,
    tokenizer: HfTokenizer,
    max_tokens: int,
) -> Seq2SeqDefaults:
    """Return what all families share; generation_config.json counts before config.json."""
    generation = directory.facts("generation_config.json")
    facts = JsonFacts(generation.path, {**directory.config.values, **generation.values})
    facts.require_neutral(
        {"begin_suppress_tokens": ([],), "forced_decoder_ids": ([],), "force_words_ids": ([],)}
    )
    target = min(
        facts.count("max_length", _MAX_TARGET_TOKENS), architecture.max_positions or 1 << 20
    )
    unknown_id = tokenizer.id_of("<unk>")
    return Seq2SeqDefaults(
        architecture=architecture.family,
        max_tokens=max_tokens,
        num_special_single=tokenizer.num_special_single,
        truncation_side=truncation_side(directory.facts("tokenizer_config.json")),
        vocab_size=architecture.vocab_size,
        decoder_start_token_id=architecture.decoder_start_token_id,
        eos_token_id=architecture.eos_token_id,
        pad_token_id=architecture.pad_token_id,
        unknown_token_id=unknown_id,
        max_target_tokens=target,
        suppressed_token_ids=_suppressed(facts, architecture.vocab_size),
        beam_size=facts.count("num_beams", 1),
        length_penalty=facts.number("length_penalty", 1.0),
    )


def _suppressed(facts: JsonFacts, vocab_size: int) -> tuple[int, ...]:
    """Return the tokens that never may be answered."""
    ids = list(facts.array("suppress_tokens"))
    for word in facts.array("bad_words_ids"):
        if not isinstance(word, list) or len(word) != 1:
            raise UnsupportedCapability(
                f"{facts.path}: bad_words_ids: {word}: single tokens are supported"
            )
        ids += word
    for token_id in ids:
        if type(token_id) is not int or not 0 <= token_id < vocab_size:
            raise InvalidRequest(f"{facts.path}: there is no token {token_id!r} to suppress")
    return tuple(sorted(set(ids)))


def _assets(
    directory: HfDirectory,
    tokenizer: HfTokenizer,
    defaults: Seq2SeqDefaults,
    target: HfTokenizer | None = None,
) -> TextAssets:
    answers = target or tokenizer
    if not answers.has_id(defaults.eos_token_id):
        raise InvalidRequest(f"{directory.path}: token {defaults.eos_token_id} has no text")
    return TextAssets(
        tokenizer_json=tokenizer.definition,
        generation=GenerationDefaults(
            max_positions=defaults.max_target_tokens,
            add_bos=False,
            add_eos=True,
            bos_token_id=None,
            eos_token_id=defaults.eos_token_id,
            stop_token_ids=(defaults.eos_token_id,),
            bos_token="",
            eos_token=str(answers.engine.id_to_token(defaults.eos_token_id)),
            pad_token_id=defaults.pad_token_id,
            unknown_token_id=defaults.unknown_token_id,
        ),
        encoder=defaults,
        target_tokenizer_json=None if target is None else target.definition,
    )
