"""What the text layer needs of a model, and the files it is kept in.

    tokenizer.json          Hugging Face `tokenizers` format
    target_tokenizer.json   the same for answers; absent when they are written like the input
    chat_template.jinja     absent when the model has none
    generation.json         `GenerationDefaults`, field by field; absent when it makes no text
    encoder.json            `EncoderDefaults` or `Seq2SeqDefaults`; absent for decoders

The names are those that other tools use, so that a model directory can be read by them too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from leptond.checkpoint.encoder_defaults import (
    EncoderDefaults,
    Seq2SeqDefaults,
    write_encoder_defaults,
)
from leptond.errors import InvariantViolation

__all__ = ["GenerationDefaults", "TextAssets", "write_text_assets"]


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """How the model's author wants it prompted and stopped.

    Attributes:
        max_positions: context length in tokens.
        add_bos: a raw prompt gets the BOS token in front; tokenizer.json does it as well, when
            it is asked to add special tokens.
        add_eos: a raw prompt gets the EOS token at its end; likewise.
        bos_token_id: None when the vocabulary has none.
        eos_token_id: the token that a chat template calls `eos_token`.
        stop_token_ids: sampling any of these ends a text; sorted; the EOS token is one.
        bos_token: text of the BOS token, for chat templates; "" when there is none.
        eos_token: text of the EOS token, likewise.
        sampling: recommended parameters by our own names (`temperature`, `top_k`, `top_p`,
            `min_p`), those that the checkpoint names.
    """

    max_positions: int
    add_bos: bool
    add_eos: bool
    bos_token_id: int | None
    eos_token_id: int | None
    stop_token_ids: tuple[int, ...]
    bos_token: str
    eos_token: str
    pad_token_id: int | None = None
    unknown_token_id: int | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextAssets:
    """Tokenizers, chat template and defaults of one model.

    Attributes:
        generation: of every model that makes text; None for encoders.
        encoder: of encoders and sequence-to-sequence models; None for decoders.
        target_tokenizer_json: tokenizer of the answers, or None when `tokenizer_json` is it.
    """

    tokenizer_json: str
    chat_template: str | None = None
    generation: GenerationDefaults | None = None
    encoder: EncoderDefaults | Seq2SeqDefaults | None = None
    target_tokenizer_json: str | None = None

    @property
    def max_tokens(self) -> int:
        """Longest input in tokens; of decoders, the context."""
        if self.encoder is not None:
            return self.encoder.max_tokens
        if self.generation is None:
            raise InvariantViolation("text assets without defaults")
        return self.generation.max_positions


def write_text_assets(assets: TextAssets, directory: Path) -> None:
    """Write the text assets of a model into the existing `directory`."""
    (directory / "tokenizer.json").write_text(assets.tokenizer_json, encoding="utf-8")
    if assets.target_tokenizer_json is not None:
        path = directory / "target_tokenizer.json"
        path.write_text(assets.target_tokenizer_json, encoding="utf-8")
    if assets.chat_template is not None:
        # newline="" keeps the template's own line ends.
        path = directory / "chat_template.jinja"
        path.write_text(assets.chat_template, encoding="utf-8", newline="")
    if assets.generation is not None:
        generation = json.dumps(asdict(assets.generation), indent=2, ensure_ascii=False)
        (directory / "generation.json").write_text(generation + "\n", encoding="utf-8")
    if assets.encoder is not None:
        write_encoder_defaults(assets.encoder, directory)
