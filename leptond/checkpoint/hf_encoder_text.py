"""Text assets of an encoder: its tokenizer.json, and `EncoderDefaults` from the files beside it."""

from __future__ import annotations

import json

from leptond.checkpoint.architecture import EncoderArchitecture
from leptond.checkpoint.encoder_defaults import EncoderDefaults
from leptond.checkpoint.hf_directory import HfDirectory
from leptond.checkpoint.hf_head import EncoderHead
from leptond.checkpoint.hf_tokenizer import HfTokenizer, max_input_tokens, truncation_side
from leptond.checkpoint.json_facts import JsonFacts
from leptond.checkpoint.sentence_transformers import SentenceTransformer
from leptond.checkpoint.text_assets import TextAssets
from leptond.types import Task

__all__ = ["read_encoder_text"]


def read_encoder_text(
    directory: HfDirectory,
    modules: SentenceTransformer | None,
    architecture: EncoderArchitecture,
    head: EncoderHead,
) -> TextAssets:
    """Read the text assets.

    Raises:
        InvalidRequest: a file is missing, damaged or contradicts another.
        UnsupportedCapability: a lower-casing that the tokenizer does not do itself.
    """
    tokenizer = HfTokenizer.read(directory, architecture.vocab_size)
    config = directory.facts("tokenizer_config.json")
    limits = JsonFacts(directory.path, {}) if modules is None else modules.limits
    if limits.boolean("do_lower_case", default=False) and not _lowers_case(tokenizer):
        raise limits.refuse("do_lower_case", "the tokenizer itself keeps the case")
    longest = limits.integer("max_seq_length", architecture.max_positions)
    is_classifier = head.task is Task.CLASSIFY
    return TextAssets(
        tokenizer_json=tokenizer.definition,
        encoder=EncoderDefaults(
            architecture=architecture.family,
            max_tokens=max_input_tokens(config, architecture.max_positions, longest)
            or architecture.max_positions,
            num_special_single=tokenizer.num_special_single,
            truncation_side=truncation_side(config),
            prompts={} if modules is None else modules.prompts,
            default_prompt=None if modules is None else modules.default_prompt,
            dimensions=head.dimensions,
            pooling=head.pooling,
            normalize=modules is not None and modules.normalize,
            labels=head.labels,
            problem_type=head.problem_type,
            activation=head.activation,
            is_cross_encoder=is_classifier and head.dimensions == 1,
            has_token_types=architecture.num_token_types > 1,
        ),
    )


def _lowers_case(tokenizer: HfTokenizer) -> bool:
    """Whether the tokenizer's normaliser lowers the case of a text."""
    text = json.loads(tokenizer.definition).get("normalizer")
    return text is not None and tokenizer.engine.normalizer.normalize_str("AB") == "ab"
