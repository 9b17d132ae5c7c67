"""The text side of a stored model: which tokenizers it has, and its chat template.

    decoder             generation.json                  a writer, maybe a chat template
    encoder             encoder.json                     an encoder
    sequence to sequence    both                         an encoder and a writer

Read by a loader thread; immutable; used on any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leptond.text.chat_template import ChatTemplate
from leptond.text.encoder_tokenizer import EncoderTokenizer
from leptond.text.tokenizer import Tokenizer

__all__ = ["TextLayer"]

_GENERATION_FILE = "generation.json"
_ENCODER_FILE = "encoder.json"
_TARGET_FILE = "target_tokenizer.json"


@dataclass(frozen=True, slots=True)
class TextLayer:
    """What turns a model's texts into tokens and back.

    Attributes:
        writer: of the texts that it writes; of a decoder, of its prompts too; None for encoders.
        encoder: of what its encoder reads; None for decoders.
        template: of chat models.
    """

    writer: Tokenizer | None
    encoder: EncoderTokenizer | None
    template: ChatTemplate | None

    @classmethod
    def load(cls, directory: Path) -> TextLayer:
        """Read the text assets of a version.

        Raises:
            ModelFailed: a file is missing or cannot be read.
        """
        encoder = None
        if (directory / _ENCODER_FILE).exists():
            encoder = EncoderTokenizer.load(directory)
            if not (directory / _GENERATION_FILE).exists():
                return cls(None, encoder, None)
        target = _TARGET_FILE if (directory / _TARGET_FILE).exists() else "tokenizer.json"
        writer = Tokenizer.load(directory, target)
        template = None if encoder is not None else ChatTemplate.load(directory, writer)
        return cls(writer, encoder, template)
