"""Reads what sentence-transformers saves beside an encoder: its modules, limits and prompts.

    modules.json                           modules in order, each with a class and a folder
    1_Pooling/config.json                  how hidden states become one vector
    2_Dense/config.json, model.safetensors a linear layer with an activation
    sentence_bert_config.json              longest input
    config_sentence_transformers.json      prompts by name

The order that is supported is transformer, pooling, any dense layers, and at most one
normalisation, the last one: the server normalises, so it is a default and no operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leptond.checkpoint.hf_directory import StoredWeights
from leptond.checkpoint.json_facts import JsonFacts, read_json
from leptond.errors import InvalidRequest, UnsupportedCapability

__all__ = ["DenseLayer", "SentenceTransformer", "read_sentence_transformer"]

_MODULES_FILE = "modules.json"
_POOLINGS = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
# Keys of older configurations, one flag per way of pooling.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
# The last part of the class's name in torch; sentence-transformers saves the whole path.
_DENSE_ACTIVATIONS = {"Identity": "identity", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu"}


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """`activation(x @ weight.T + bias)`; shapes were checked."""

    weights: StoredWeights
    has_bias: bool
    activation: str
    num_outputs: int

    def weight(self) -> npt.NDArray[np.float32]:
        """Return the matrix, `[out, in]`."""
        return self.weights.read("linear.weight")

    def bias(self) -> npt.NDArray[np.float32] | None:
        """Return the bias, `[out]`, if there is one."""
        return self.weights.read("linear.bias") if self.has_bias else None


@dataclass(frozen=True, slots=True)
class SentenceTransformer:
    """The modules behind an encoder.

    Attributes:
        transformer: folder of the encoder's own files.
        pooling: "mean", "cls" or "last".
        dense: layers after the pooling, in order.
        normalize: embeddings are brought to length 1 at the end.
        limits: sentence_bert_config.json.
        prompts: texts that are put in front of an input, by name.
        default_prompt: name of the one that is used unasked, or None.
    """

    transformer: Path
    pooling: str
    dense: tuple[DenseLayer, ...]
    normalize: bool
    limits: JsonFacts
    prompts: Mapping[str, str]
    default_prompt: str | None


def read_sentence_transformer(path: Path) -> SentenceTransformer | None:
    """Read the modules of the directory `path`; None when it has no modules.json.

    Raises:
        InvalidRequest: a file is missing, damaged or contradicts another.
        UnsupportedCapability: a module, or an order of modules, that is not known.
    """
    file = path / _MODULES_FILE
    if not file.exists():
        return None
    modules = [(kind, _folder(path, name)) for kind, name in _listed(file)]
    modules = [(kind, folder) for kind, folder in modules if kind != "Dropout"]  # off in use
    kinds = [kind for kind, _ in modules]
    normalize = kinds[-1:] == ["Normalize"]
    dense = modules[2 : len(modules) - normalize]
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind != "Dense" for kind, _ in dense):
        raise UnsupportedCapability(
            f"{file}: {', '.join(kinds)}: Transformer, Pooling, Dense layers and one Normalize "
            "at the end are supported, in this order"
        )
    transformer = modules[0][1]
    prompts = JsonFacts.read_optional(path / "config_sentence_transformers.json")
    texts = prompts.texts("prompts")
    default = prompts.text("default_prompt_name", "") or None
    if default is not None and default not in texts:
        raise prompts.invalid("default_prompt_name", "there is no prompt of that name")
    return SentenceTransformer(
        transformer=transformer,
        pooling=_read_pooling(JsonFacts.read(modules[1][1] / "config.json")),
        dense=tuple(_read_dense(folder) for _, folder in dense),
        normalize=normalize,
        limits=JsonFacts.read_optional(transformer / "sentence_bert_config.json"),
        prompts=texts,
        default_prompt=default,
    )


def _listed(file: Path) -> list[tuple[str, str]]:
    """Class and folder of each module, in order."""
    modules = read_json(file)
    if not isinstance(modules, list):
        raise InvalidRequest(f"{file}: a list of modules is needed")
    facts = [JsonFacts(file, module, f"{index}.") for index, module in enumerate(modules)]
    return [(fact.text("type").rsplit(".", 1)[-1], fact.text("path")) for fact in facts]


def _folder(path: Path, name: str) -> Path:
    folder = (path / name).resolve()
    if not folder.is_relative_to(path.resolve()):
        raise InvalidRequest(f"{path / _MODULES_FILE}: {name}: a folder outside the directory")
    return path / name


def _read_pooling(config: JsonFacts) -> str:
    if "pooling_mode" in config:
        key = "pooling_mode"
        modes = [config.text(key)]
    else:
        key = ", ".join(flag for flag in _POOLING_FLAGS if config.values.get(flag) is True)
        modes = [_POOLING_FLAGS[flag] for flag in key.split(", ")] if key else []
    pooling = _POOLINGS.get(modes[0]) if len(modes) == 1 else None
    if pooling is None:
        raise UnsupportedCapability(
            f"{config.path}: pooling {' + '.join(modes) or 'without a mode'}: one of "
            f"{', '.join(_POOLINGS)} is supported"
        )
    config.require_neutral({"include_prompt": (True,)})
    return pooling


def _read_dense(folder: Path) -> DenseLayer:
    config = JsonFacts.read(folder / "config.json")
    activation = config.text("activation_function", "torch.nn.modules.activation.Tanh")
    name = _DENSE_ACTIVATIONS.get(activation.rsplit(".", 1)[-1])
    if name is None:
        raise config.refuse("activation_function", f"{', '.join(_DENSE_ACTIVATIONS)} are supported")
    num_inputs, num_outputs = config.count("in_features"), config.count("out_features")
    has_bias = config.boolean("bias", default=True)
    weights = StoredWeights(folder)
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (num_outputs, num_inputs)}
    if has_bias:
        shapes["linear.bias"] = (num_outputs,)
    if weights.shapes != shapes:
        raise InvalidRequest(f"{folder}: tensors {weights.shapes}, config.json asks for {shapes}")
    return DenseLayer(weights, has_bias, name, num_outputs)
