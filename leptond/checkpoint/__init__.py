"""Checkpoints (GGUF now) read into named float arrays, architecture facts and text assets.

Importers call `open_checkpoint` and turn what it returns into their engine's own format. Nothing
here knows an engine. The packages that read the formats are the `import` extra and are loaded
when a file is opened.
"""

from leptond.checkpoint.architecture import DecoderArchitecture, RotaryEmbedding
from leptond.checkpoint.checkpoint import Checkpoint, expected_shapes
from leptond.checkpoint.opening import open_checkpoint
from leptond.checkpoint.text_assets import GenerationDefaults, TextAssets, write_text_assets

__all__ = [
    "Checkpoint",
    "DecoderArchitecture",
    "GenerationDefaults",
    "RotaryEmbedding",
    "TextAssets",
    "expected_shapes",
    "open_checkpoint",
    "write_text_assets",
]
