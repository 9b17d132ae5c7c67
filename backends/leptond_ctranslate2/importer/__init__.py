"""Turns checkpoints into the engine's own files, without torch."""

from leptond_ctranslate2.importer.writing import write_model

__all__ = ["write_model"]
