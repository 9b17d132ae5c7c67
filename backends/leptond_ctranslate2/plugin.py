"""The entry point of the plug-in: what the daemon finds under `leptond.backends`.

CTranslate2 is imported when something is loaded, written or described, so that the daemon starts,
and estimates, without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leptond.backend import (
    API_VERSION,
    MemoryEstimate,
    Model,
    ModelSource,
    Progress,
    SessionOptions,
)

if TYPE_CHECKING:
    from leptond.checkpoint import Checkpoint, TextAssets

__all__ = ["CTranslate2Backend", "CTranslate2Importer", "backend"]


class CTranslate2Importer:
    """Writes checkpoints in the engine's own format."""

    precisions = (
        "float32",
        "int8",
        "int8_float32",
        "int8_bfloat16",
        "int8_float16",
        "bfloat16",
        "float16",
    )

    def write(
        self, checkpoint: Checkpoint, directory: Path, precision: str, progress: Progress
    ) -> Mapping[str, object]:
        """Write one variant into the empty `directory`.

        Returns:
            Where it was written and how its weights were rounded, and `advice` when it should
            not be a default.

        Raises:
            UnsupportedCapability: the architecture has a fact that the engine cannot express.
        """
        from leptond_ctranslate2.facts import facts_of
        from leptond_ctranslate2.importer import write_model
        from leptond_ctranslate2.precision import Precision

        return facts_of(write_model(checkpoint, directory, Precision(precision), progress))

    def is_ready(self, source: Path) -> bool:
        """Whether it is a directory with the engine's weights."""
        from leptond_ctranslate2.description import WEIGHTS_FILE

        return (source / WEIGHTS_FILE).is_file()

    def files_beside(self, source: Path) -> Sequence[Path]:
        """Nothing: a model is all in its directory."""
        del source
        return ()

    def explain(self, source: Path) -> str:
        """Which of the engine's converters makes a ready directory of `source`."""
        from leptond_ctranslate2.importer.converters import conversion_advice

        return conversion_advice(source)

    def import_ready(
        self, source: Path, tokenizer: Path, directory: Path, *, pooling: str | None = None
    ) -> tuple[Mapping[str, object], TextAssets]:
        """Take over a model that is in the engine's format already.

        Args:
            source: holds `model.bin`, `config.json` and one vocabulary.
            tokenizer: the model's tokenizer.json.
            directory: of the variant; empty.
            pooling: of an encoder: `mean`, which None is, `cls` or `last`.

        Returns:
            As `write`, with `precision`; and the text assets of the version.

        Raises:
            InvalidRequest: it is not in the engine's format, and then the message names the
                converter to run; or the tokenizer is not the model's.
            UnsupportedCapability: a kind of model, a type or vocabularies that are not served.
        """
        from leptond_ctranslate2.facts import facts_of
        from leptond_ctranslate2.importer import import_directory

        ready = import_directory(source, tokenizer, directory, pooling=pooling or "mean")
        return facts_of(ready.description), ready.text


class CTranslate2Backend:
    """CTranslate2 on the CPU, and on CUDA where its build and the machine have it."""

    name = "ctranslate2"
    api_version = API_VERSION
    importer = CTranslate2Importer()

    def describe(self) -> Mapping[str, str]:
        """Version, devices with their precisions, and what decides the speed of this machine."""
        import ctranslate2

        from leptond.backend.processor import (
            cpu_model,
            instruction_sets,
            num_available_cores,
        )
        from leptond_ctranslate2.device import list_devices

        return {
            "version": str(ctranslate2.__version__),
            **{device.name: ", ".join(device.precisions) for device in list_devices()},
            "processor": cpu_model() or "unknown",
            "instruction_sets": ", ".join(instruction_sets()) or "unknown",
            "cores": str(num_available_cores()),
        }

    def estimate_bytes(self, source: ModelSource, options: SessionOptions) -> MemoryEstimate:
        """What loading would take. Raises `ModelFailed` when the files are not a model's."""
        from leptond_ctranslate2.memory import estimate_model

        return estimate_model(source, options)

    def load(self, source: ModelSource, progress: Progress) -> Model:
        """Load weights; blocks; see `CTranslate2Model.load` for what it raises."""
        from leptond_ctranslate2.model import CTranslate2Model

        return CTranslate2Model.load(source, progress)


backend = CTranslate2Backend()
