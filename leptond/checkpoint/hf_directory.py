"""A model directory as Hugging Face libraries save it: config.json and safetensors, no pickles.

What the readers of the families share: the files, the weights by their stored names however many
files they lie in, and the check that stored and canonical tensors fit each other.

Unknown keys of config.json are passed over, for the same reason for which `transformers` passes
over them: without `auto_map` the model is that of its `model_type`, whose code reads the keys
that the readers look at and no others. What those keys switch on and is not built is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leptond.checkpoint.json_facts import JsonFacts
from leptond.checkpoint.safetensors_file import SafetensorsFile
from leptond.errors import InvalidRequest, UnsupportedCapability

__all__ = ["HfDirectory", "NamedTensors", "StoredWeights"]

_LOG = logging.getLogger(__name__)
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")

Shapes = Mapping[str, tuple[int, ...]]


class StoredWeights:
    """Tensors by stored name, out of one safetensors file or several."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        self._files = {name: file for file in _open_weights(directory) for name in file.tensors}

    def __contains__(self, name: str) -> bool:
        return name in self._files

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every stored tensor."""
        return {name: file.tensors[name].shape for name, file in self._files.items()}

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Return the tensor of that stored name."""
        return self._files[name].read(name)


def _open_weights(directory: Path) -> list[SafetensorsFile]:
    index = directory / _INDEX
    if index.exists():
        names = sorted(set(JsonFacts.read(index).texts("weight_map").values()))
        if any(Path(name).name != name for name in names):
            raise InvalidRequest(f"{index}: weight_map: a file outside the directory")
        return [SafetensorsFile(directory / name) for name in names]
    if (directory / _WEIGHTS).exists():
        return [SafetensorsFile(directory / _WEIGHTS)]
    pickles = sorted(path.name for pattern in _PICKLES for path in directory.glob(pattern))
    if pickles:
        raise UnsupportedCapability(
            f"{directory / pickles[0]}: pickled weights are never read, since loading them runs "
            f"code: save the model as safetensors (save_pretrained of transformers does)"
        )
    raise InvalidRequest(f"{directory}: {_WEIGHTS} is missing")


class HfDirectory:
    """One directory.

    Attributes:
        path: the directory.
        config: config.json.
        weights: its tensors.

    Raises:
        InvalidRequest: a file is missing, damaged or contradicts another.
        UnsupportedCapability: pickled or quantised weights, or code of the model's own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = JsonFacts.read(path / "config.json")
        for key, what in {
            "auto_map": "a model with code of its own",
            "quantization_config": "quantised weights",
        }.items():
            if self.config.values.get(key):
                raise self.config.refuse(key, f"{what} is not supported")
        self.weights = StoredWeights(path)

    @property
    def model_type(self) -> str:
        """The family, as `transformers` names it."""
        return self.config.text("model_type")

    @property
    def model_class(self) -> str:
        """Class that the checkpoint was saved from; "" when it does not say."""
        classes = self.config.values.get("architectures") or [""]
        if not isinstance(classes, list) or len(classes) != 1:
            raise self.config.invalid("architectures", "a list of one name is needed")
        return str(classes[0])

    def num_layers(self, key: str, default: int | None = None) -> int:
        """Return a number of layers, which cannot be more than there are tensors."""
        count = self.config.count(key, default)
        if count > (num_tensors := len(self.weights.shapes)):
            raise self.config.invalid(key, f"there are {num_tensors} tensors")
        return count

    def token_id(self, key: str, vocab_size: int, default: int | None = None) -> int:
        """Return the id of a token, which has a row in the embedding."""
        token_id = self.config.integer(key, default)
        if token_id >= vocab_size:
            raise self.config.invalid(key, f"the embedding has {vocab_size} rows")
        return token_id

    def facts(self, name: str) -> JsonFacts:
        """Return the JSON file of that name; without keys when it is not there."""
        return JsonFacts.read_optional(self.path / name)

    def text(self, name: str) -> str | None:
        """Return the text file of that name, or None when it is not there."""
        path = self.path / name
        if not path.exists():
            return None
        try:
            return path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{path}: {error}") from error


class NamedTensors:
    """Stored tensors by canonical name, checked against the shapes that the config asks for.

    Args:
        weights: the stored tensors.
        shapes: by canonical name, as they are stored.
        sources: stored names by canonical name, the first one that is there is taken.
        is_unused: says which other stored tensors do not touch the result; any further one is
            part of a model that is not the one described.

    Raises:
        InvalidRequest: a tensor is missing or has another shape.
        UnsupportedCapability: a tensor that nobody knows.
    """

    def __init__(
        self,
        weights: StoredWeights,
        shapes: Shapes,
        sources: Mapping[str, Sequence[str]],
        is_unused: Callable[[str], bool],
    ) -> None:
        self._weights = weights
        stored = weights.shapes
        self._sources: dict[str, str] = {}
        for name, shape in shapes.items():
            source = next((source for source in sources[name] if source in stored), None)
            if source is None:
                raise InvalidRequest(f"{weights.path}: tensor '{sources[name][0]}' is missing")
            if stored[source] != shape:
                raise InvalidRequest(
                    f"{weights.path}: tensor '{source}' has shape {stored[source]}, "
                    f"config.json asks for {shape}"
                )
            self._sources[name] = source
        known = {source for names in sources.values() for source in names}
        for name in sorted(stored.keys() - known):
            if not is_unused(name):
                raise UnsupportedCapability(
                    f"{weights.path}: tensor '{name}' is not part of the architecture as it is "
                    "read here"
                )
            _LOG.info("tensor not imported name=%s path=%s", name, weights.path)

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Return the tensor of canonical `name`, as it is stored.

        Raises:
            KeyError: there is no such name.
        """
        return self._weights.read(self._sources[name])
