"""The entry point of the plug-in: what the daemon finds under `leptond.backends`.

ONNX Runtime is imported when something is loaded or described, so that the daemon starts, and
estimates, without it.
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
    from leptond_onnxruntime.importer import EncoderSpec, GraphSpec

__all__ = ["OnnxRuntimeBackend", "OnnxRuntimeImporter", "backend"]


class OnnxRuntimeImporter:
    """Writes checkpoints as graphs: a decoder as body and head, an encoder as one."""

    precisions = ("int8", "float32", "float16")

    def write(
        self, checkpoint: Checkpoint, directory: Path, precision: str, progress: Progress
    ) -> Mapping[str, object]:
        """Write one variant into the empty `directory`.

        Returns:
            Where it was written: kernels differ by instruction set, and so may its quality.

        Raises:
            UnsupportedCapability: the architecture has a fact that the graphs cannot express, or
                an encoder is not written in that precision.
            BackendUnavailable: the `onnx` package is not installed.
        """
        from leptond.checkpoint import EncoderCheckpoint
        from leptond_onnxruntime.importer import Precision, import_decoder, import_encoder

        def report(stage: str, fraction: float) -> None:
            progress(stage, fraction)

        if isinstance(checkpoint, EncoderCheckpoint):
            return _facts(import_encoder(checkpoint, directory, Precision(precision), report))
        return _facts(import_decoder(checkpoint, directory, Precision(precision), report))

    def is_ready(self, source: Path) -> bool:
        """Whether it is an ONNX file."""
        return source.is_file() and source.suffix == ".onnx"

    def files_beside(self, source: Path) -> Sequence[Path]:
        """The files of the weights that it keeps outside.

        Raises:
            InvalidRequest: one is missing, or it is no encoder's ONNX file.
            BackendUnavailable: the `onnx` package is not installed.
        """
        from leptond_onnxruntime.importer import weight_files

        return weight_files(source)

    def explain(self, source: Path) -> str:
        """How an ONNX file is made of `source`."""
        return (
            f"{source} is no ONNX file. From a Hugging Face directory of an encoder, "
            f"'optimum-cli export onnx --task feature-extraction --model {source} OUT' makes "
            "OUT/model.onnx and OUT/tokenizer.json"
        )

    def import_ready(
        self, source: Path, tokenizer: Path, directory: Path, *, pooling: str | None = None
    ) -> tuple[Mapping[str, object], TextAssets]:
        """Take over an encoder's ONNX file.

        Args:
            source: takes `input_ids` and `attention_mask`, int64 [rows, longest], and maybe
                `token_type_ids`; gives hidden states or embeddings in float32.
            tokenizer: the model's tokenizer.json.
            directory: of the variant; empty.
            pooling: `mean`, `cls` or `last` of the hidden states; None takes the embeddings that
                the file gives, and where it gives none, `mean`.

        Returns:
            As `write`, with `precision`; and the text assets of the version.

        Raises:
            InvalidRequest: it is no such file, or the tokenizer is not the model's.
            UnsupportedCapability: operators or types that are not served.
            BackendUnavailable: the `onnx` package is not installed.
        """
        from leptond_onnxruntime.importer import import_onnx_file

        spec, text = import_onnx_file(source, tokenizer, directory, pooling=pooling)
        facts = {
            "architecture": spec.family,
            "precision": str(spec.precision),
            "max_context_tokens": spec.max_positions,
        }
        return {**facts, **_facts(spec)}, text


def _facts(spec: GraphSpec | EncoderSpec) -> dict[str, object]:
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
        from leptond_onnxruntime.encoder_model import estimate_encoder, is_encoder
        from leptond_onnxruntime.model import estimate_model

        estimate = estimate_encoder if is_encoder(source) else estimate_model
        return estimate(source, options)

    def load(self, source: ModelSource, progress: Progress) -> Model:
        """Load weights; blocks; see `OnnxModel.load` for what it raises."""
        from leptond_onnxruntime.encoder_model import EncoderModel, is_encoder
        from leptond_onnxruntime.model import OnnxModel

        if is_encoder(source):
            return EncoderModel.load(source, progress)
        return OnnxModel.load(source, progress)


backend = OnnxRuntimeBackend()
