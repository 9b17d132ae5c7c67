"""Checkpoints (GGUF, Hugging Face) as named float arrays, architecture facts and text assets.

Importers call `open_checkpoint` and turn what it returns into their engine's own format. Nothing
here knows an engine. The packages that read the formats are the `import` extra and are loaded
when a file is opened.
"""

from leptond.checkpoint.architecture import (
    Activation,
    Architecture,
    DecoderArchitecture,
    EncoderArchitecture,
    RelativeBias,
    RotaryEmbedding,
    Seq2SeqArchitecture,
)
from leptond.checkpoint.checkpoint import (
    Checkpoint,
    DecoderCheckpoint,
    EncoderCheckpoint,
    HeadParts,
    Seq2SeqCheckpoint,
)
from leptond.checkpoint.encoder_defaults import (
    EncoderDefaults,
    LanguageStyle,
    Seq2SeqDefaults,
    read_encoder_defaults,
    write_encoder_defaults,
)
from leptond.checkpoint.opening import open_checkpoint
from leptond.checkpoint.tensors import expected_shapes
from leptond.checkpoint.text_assets import GenerationDefaults, TextAssets, write_text_assets

__all__ = [
    "Activation",
    "Architecture",
    "Checkpoint",
    "DecoderArchitecture",
    "DecoderCheckpoint",
    "EncoderArchitecture",
    "EncoderCheckpoint",
    "EncoderDefaults",
    "GenerationDefaults",
    "HeadParts",
    "LanguageStyle",
    "RelativeBias",
    "RotaryEmbedding",
    "Seq2SeqArchitecture",
    "Seq2SeqCheckpoint",
    "Seq2SeqDefaults",
    "TextAssets",
    "expected_shapes",
    "open_checkpoint",
    "read_encoder_defaults",
    "write_encoder_defaults",
    "write_text_assets",
]
