"""The entry point of the plug-in: what the daemon finds under `leptond.backends`.

ONNX Runtime is imported when something is loaded or described, so that the daemon starts, and
estimates, without it.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    from leptond.checkpoint import Checkpoint

__all__ = ["OnnxRuntimeBackend", "OnnxRuntimeImporter", "backend"]


class OnnxRuntimeImporter:
    """Writes checkpoints as body and head graph."""

    precisions = ("int8", "float32", "float16")

    def write(
        self, checkpoint: Checkpoint, directory: Path, precision: str, progress: Progress
    ) -> Mapping[str, object]:
        """Write one variant into the empty `directory`.

        Returns:
            Where it was written: kernels differ by instruction set, and so may its quality.

        Raises:
            UnsupportedCapability: the architecture has a fact that the graphs cannot express.
            BackendUnavailable: the `onnx` package is not installed.
        """
        from leptond_onnxruntime.importer import Precision, import_decoder

        def report(stage: str, fraction: float) -> None:
            progress(stage, fraction)

        spec = import_decoder(checkpoint, directory, Precision(precision), report)
        return {"cpu_model": spec.cpu_model, "instruction_sets": list(spec.instruction_sets)}


class OnnxRuntimeBackend:
    """ONNX Runtime on the CPU, and on CUDA where its build has it."""

    name = "onnxruntime"
    api_version = API_VERSION
    importer = OnnxRuntimeImporter()

    def describe(self) -> Mapping[str, str]:
        """Version, execution providers, and what decides the speed of this machine."""
        import onnxruntime

        from leptond.backend.processor import (
            cpu_model,
            instruction_sets,
            num_available_cores,
        )

        return {
            "version": str(onnxruntime.__version__),
            "providers": ", ".join(onnxruntime.get_available_providers()),
            "cpu": cpu_model() or "unknown",
            "instruction_sets": ", ".join(instruction_sets()) or "unknown",
            "cores": str(num_available_cores()),
        }

    def estimate_bytes(self, source: ModelSource, options: SessionOptions) -> MemoryEstimate:
        """What loading would take. Raises `ModelFailed` when the files are not a model's."""
        from leptond_onnxruntime.model import estimate_model

        return estimate_model(source, options)

    def load(self, source: ModelSource, progress: Progress) -> Model:
        """Load weights; blocks; see `OnnxModel.load` for what it raises."""
        from leptond_onnxruntime.model import OnnxModel

        return OnnxModel.load(source, progress)


backend = OnnxRuntimeBackend()
