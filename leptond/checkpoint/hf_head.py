"""Reads what follows an encoder's last hidden state: pooling, dense layers, classification.

    BertForSequenceClassification         cls → pooler.dense, tanh → classifier
    DistilBertForSequenceClassification   cls → pre_classifier, relu → classifier
    RobertaForSequenceClassification      cls → classifier.dense, tanh → classifier.out_proj
    XLMRobertaForSequenceClassification   the same
    modules.json                          pooling → dense layers
    a bare encoder                        mean, as sentence-transformers takes it

The pre-training classes (masked language model, next sentence) count as bare encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.checkpoint.checkpoint import HeadParts
from leptond.checkpoint.hf_directory import HfDirectory
from leptond.checkpoint.json_facts import JsonFacts
from leptond.checkpoint.sentence_transformers import DenseLayer, SentenceTransformer
from leptond.errors import InvalidRequest, UnsupportedCapability
from leptond.types import Task

__all__ = ["EncoderHead", "read_head"]

# Modules of each class after its first token's hidden state, each with its activation. The
# encoder's own prefix stands before the pooler of BERT, nothing before the others.
_CLASSIFIERS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "BertForSequenceClassification": (
        ("{prefix}pooler.dense", "tanh"),
        ("classifier", "identity"),
    ),
    "DistilBertForSequenceClassification": (
        ("pre_classifier", "relu"),
        ("classifier", "identity"),
    ),
    "RobertaForSequenceClassification": (
        ("classifier.dense", "tanh"),
        ("classifier.out_proj", "identity"),
    ),
    "XLMRobertaForSequenceClassification": (
        ("classifier.dense", "tanh"),
        ("classifier.out_proj", "identity"),
    ),
}
_BARE = frozenset(
    {
        "",
        "BertModel", "BertForMaskedLM", "BertForPreTraining", "BertForNextSentencePrediction",
        "DistilBertModel", "DistilBertForMaskedLM",
        "RobertaModel", "RobertaForMaskedLM",
        "XLMRobertaModel", "XLMRobertaForMaskedLM",
    }
)  # fmt: skip
_PROBLEMS = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}
# What cross-encoders name as their activation, by the last part of the class's name in torch.
_SCORE_ACTIVATIONS = {"Identity": "identity", "Sigmoid": "sigmoid"}


@dataclass(frozen=True, slots=True)
class EncoderHead:
    """The head of one checkpoint; `hf_encoder_text` turns its facts into defaults.

    Attributes:
        pooling: "mean", "cls" or "last".
        dimensions: length of what comes out: of the embedding, or number of labels.
        labels, problem_type, activation: of a classifier, as `EncoderDefaults` has them.
    """

    task: Task
    pooling: str
    dimensions: int
    labels: tuple[str, ...]
    problem_type: str | None
    activation: str
    _stored: tuple[tuple[str, str], ...]
    _dense: tuple[DenseLayer, ...]
    _directory: HfDirectory

    def owns(self, name: str) -> bool:
        """Whether the stored tensor of that name is part of the head."""
        return name.rpartition(".")[0] in [module for module, _ in self._stored]

    def parts(self) -> HeadParts:
        """Return the operations, and their arrays read now."""
        operations: list[dict[str, Any]] = [{"op": "pool", "kind": self.pooling}]
        arrays: dict[str, npt.NDArray[np.float32]] = {}
        for index, (weight, bias, activation) in enumerate(self._layers()):
            names = {"weight": f"{index}.weight", "bias": f"{index}.bias"}
            arrays[names["weight"]] = weight
            if bias is not None:
                arrays[names["bias"]] = bias
            operations.append(
                {
                    "op": "dense",
                    "weight": names["weight"],
                    "bias": None if bias is None else names["bias"],
                    "activation": activation,
                }
            )
        return HeadParts(self.task, operations, arrays)

    def _layers(
        self,
    ) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None, str]]:
        read = self._directory.weights.read
        stored = [
            (read(f"{module}.weight"), read(f"{module}.bias"), activation)
            for module, activation in self._stored
        ]
        return [
            *stored,
            *((layer.weight(), layer.bias(), layer.activation) for layer in self._dense),
        ]


def read_head(
    directory: HfDirectory, modules: SentenceTransformer | None, hidden_size: int, prefix: str
) -> EncoderHead:
    """Find the head of a checkpoint and check the shapes of its tensors.

    Args:
        directory: the encoder's files.
        modules: of sentence-transformers, or None.
        hidden_size: of the encoder.
        prefix: of the encoder's tensors.

    Raises:
        InvalidRequest: a tensor is missing, or shapes do not follow each other.
        UnsupportedCapability: a class whose head is not known.
    """
    model_class = directory.model_class
    if modules is not None or model_class in _BARE:
        return _embedder(directory, modules, hidden_size)
    if model_class not in _CLASSIFIERS:
        known = ", ".join(sorted(_CLASSIFIERS))
        raise directory.config.refuse(
            "architectures", f"no head is known for it (known: {known}, and bare encoders)"
        )
    stored = tuple(
        (module.format(prefix=prefix), activation)
        for module, activation in _CLASSIFIERS[model_class]
    )
    num_labels = _check_layers(directory, [module for module, _ in stored], hidden_size)
    problem_type, activation = _read_problem(directory.config, num_labels)
    return EncoderHead(
        task=Task.CLASSIFY,
        pooling="cls",
        dimensions=num_labels,
        labels=_read_labels(directory.config, num_labels),
        problem_type=problem_type,
        activation=activation,
        _stored=stored,
        _dense=(),
        _directory=directory,
    )


def _embedder(
    directory: HfDirectory, modules: SentenceTransformer | None, hidden_size: int
) -> EncoderHead:
    dense = () if modules is None else modules.dense
    size = hidden_size
    for layer in dense:
        num_inputs = layer.weights.shapes["linear.weight"][1]
        if num_inputs != size:
            raise InvalidRequest(f"{layer.weights.path}: it takes {num_inputs} values, not {size}")
        size = layer.num_outputs
    return EncoderHead(
        task=Task.EMBED,
        pooling="mean" if modules is None else modules.pooling,
        dimensions=size,
        labels=(),
        problem_type=None,
        activation="identity",
        _stored=(),
        _dense=dense,
        _directory=directory,
    )


def _check_layers(directory: HfDirectory, modules: Sequence[str], hidden_size: int) -> int:
    """Return the outputs of the last of the linear `modules`."""
    shapes = directory.weights.shapes
    size = hidden_size
    for module in modules:
        weight, bias = shapes.get(f"{module}.weight"), shapes.get(f"{module}.bias")
        if weight is None or bias is None:
            raise InvalidRequest(f"{directory.path}: '{module}': weight or bias is missing")
        if len(weight) != 2 or weight[1] != size or bias != weight[:1]:  # noqa: PLR2004 - a matrix
            raise InvalidRequest(
                f"{directory.path}: '{module}': shapes {weight} and {bias} do not fit {size} inputs"
            )
        size = weight[0]
    return size


def _read_labels(config: JsonFacts, num_labels: int) -> tuple[str, ...]:
    """Return the names of the labels; transformers writes LABEL_0 and so on when none are given."""
    names = config.texts("id2label")
    if not names:
        return tuple(f"LABEL_{index}" for index in range(num_labels))
    try:
        return tuple(names[str(index)] for index in range(num_labels))
    except KeyError as error:
        raise config.invalid("id2label", f"{num_labels} labels are needed") from error


def _read_problem(config: JsonFacts, num_labels: int) -> tuple[str, str]:
    """Return the problem type and the activation that turns logits into scores.

    transformers' own rules: without a type, one label is a regression when a model is trained,
    yet its text-classification pipeline puts a sigmoid on a single logit; cross-encoders may
    name their activation.
    """
    named = config.text("problem_type", "") or None
    if named is not None and named not in _PROBLEMS:
        raise config.refuse("problem_type", f"one of {', '.join(_PROBLEMS)} is needed")
    problem = "regression" if num_labels == 1 else "single_label"
    if named is not None:
        problem = _PROBLEMS[named]
    if activation := _named_activation(config):
        return problem, activation
    if named == "regression":
        return problem, "identity"
    return problem, "softmax" if problem == "single_label" and num_labels > 1 else "sigmoid"


def _named_activation(config: JsonFacts) -> str | None:
    """Activation that sentence-transformers saved with a cross-encoder, old key or new."""
    for facts, key in (
        (config.object("sentence_transformers"), "activation_fn"),
        (config, "sbert_ce_default_activation_function"),
    ):
        if key in facts:
            activation = _SCORE_ACTIVATIONS.get(facts.text(key).rsplit(".", 1)[-1])
            if activation is None:
                raise UnsupportedCapability(
                    f"{config.path}: {key} = {facts.values[key]!r}: "
                    f"{', '.join(_SCORE_ACTIVATIONS)} are supported"
                )
            return activation
    return None
