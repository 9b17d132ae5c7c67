"""Turns checkpoints into the engine's own files, without torch."""

from leptond_ctranslate2.importer.ready import ReadyModel, import_directory
from leptond_ctranslate2.importer.writing import write_model

__all__ = ["ReadyModel", "import_directory", "write_model"]
