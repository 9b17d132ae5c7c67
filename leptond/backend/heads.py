"""What follows an encoder's last hidden state, in numpy: pooling, dense layers, classification.

Engines end at the hidden states, so every plug-in that runs encoders uses this one head. The
importer saves it into the variant's directory, the model loads it from there:

    head.json   {"task": "embed" | "classify", "operations": [operation, ...]}
    head.npz    float32 arrays by the names that the operations use

    {"op": "pool", "kind": "mean" | "cls" | "last"}       the first one, and only once
    {"op": "dense", "weight": name, "bias": name | null,
     "activation": "identity" | "tanh" | "relu" | "gelu" | "gelu_tanh"}
                                                          activation(x @ weight.T + bias)

Made by an importer or a loader; immutable; used on any thread.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.backend.rows import FloatArray
from leptond.errors import InvalidRequest, ModelFailed, UnsupportedCapability
from leptond.types import Task

__all__ = ["HEAD_ARRAYS_FILE", "HEAD_FILE", "POOLINGS", "Head"]

HEAD_FILE = "head.json"
HEAD_ARRAYS_FILE = "head.npz"
POOLINGS = ("mean", "cls", "last")

_erf = np.frompyfunc(math.erf, 1, 1)


def _gelu(x: FloatArray) -> FloatArray:
    """`x Φ(x)`; exact, as few values pass here that the speed does not matter."""
    result: FloatArray = x * (0.5 + 0.5 * _erf(x / math.sqrt(2)).astype(np.float32))
    return result


def _gelu_tanh(x: FloatArray) -> FloatArray:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    result: FloatArray = 0.5 * x * (1 + np.tanh(inner))
    return result


_ACTIVATIONS: Mapping[str, Callable[[FloatArray], FloatArray]] = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
}


@dataclass(frozen=True, slots=True, eq=False)
class _Dense:
    weight: FloatArray
    bias: FloatArray | None
    activation: Callable[[FloatArray], FloatArray]

    def __call__(self, x: FloatArray) -> FloatArray:
        y = x @ self.weight.T
        return self.activation(y if self.bias is None else y + self.bias)


class Head:
    """The head of one encoder.

    Args:
        task: EMBED or CLASSIFY; what its output is.
        operations: as head.json holds them.
        arrays: float32, by the names that the operations use.
        source: what to name in messages.

    Attributes:
        task: as given.
        pooling: the model's own, one of `POOLINGS`.

    Raises:
        ModelFailed: operations or arrays that do not fit each other, or that are not known.
    """

    def __init__(
        self,
        task: Task | str,
        operations: Sequence[Mapping[str, Any]],
        arrays: Mapping[str, npt.NDArray[np.float32]],
        *,
        source: str = HEAD_FILE,
    ) -> None:
        if task not in (Task.EMBED, Task.CLASSIFY):
            raise ModelFailed(f"{source}: task: {task!r} is neither embed nor classify")
        self.task = Task(task)
        self._operations = [dict(operation) for operation in operations]
        self._arrays = dict(arrays)
        self.pooling = _read_pooling(self._operations, source)
        self._layers = [
            _read_dense(operation, self._arrays, f"{source}: operation {index}")
            for index, operation in enumerate(self._operations[1:], start=1)
        ]
        for index, (before, after) in enumerate(zip(self._layers, self._layers[1:], strict=False)):
            if after.weight.shape[1] != len(before.weight):
                raise ModelFailed(f"{source}: operations {index + 1} and {index + 2} do not fit")

    @classmethod
    def load(cls, directory: Path) -> Head:
        """Read `head.json` and `head.npz` of `directory`.

        Raises:
            ModelFailed: a file is missing or damaged, or as for the constructor.
        """
        path = directory / HEAD_FILE
        try:
            fields = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ModelFailed(f"{path}: {error}") from error
        if not isinstance(fields, dict) or fields.keys() != {"task", "operations"}:
            raise ModelFailed(f"{path}: an object of task and operations is needed")
        operations = fields["operations"]
        if not isinstance(operations, list) or not all(isinstance(op, dict) for op in operations):
            raise ModelFailed(f"{path}: operations: a list of objects is needed")
        arrays = _read_arrays(directory / HEAD_ARRAYS_FILE)
        return cls(fields["task"], operations, arrays, source=str(path))

    def save(self, directory: Path) -> None:
        """Write `head.json` and `head.npz` into the existing `directory`."""
        fields = {"task": self.task.value, "operations": self._operations}
        text = json.dumps(fields, indent=2)
        (directory / HEAD_FILE).write_text(text + "\n", encoding="utf-8")
        arrays: dict[str, Any] = self._arrays
        np.savez(directory / HEAD_ARRAYS_FILE, **arrays)

    def num_outputs(self, hidden_size: int) -> int:
        """Return the length of an embedding, or the number of labels.

        Raises:
            ModelFailed: the first dense layer does not take `hidden_size` values.
        """
        if not self._layers:
            return hidden_size
        if self._layers[0].weight.shape[1] != hidden_size:
            raise ModelFailed(f"{HEAD_FILE}: the first layer does not take {hidden_size} values")
        return len(self._layers[-1].weight)

    def embed(
        self, hidden: FloatArray, lengths: npt.NDArray[np.integer], pooling: str | None = None
    ) -> FloatArray:
        """Return the embeddings of a padded batch, not normalised.

        Args:
            hidden: float32 `[batch, time, hidden_size]`; finite, its padding too.
            lengths: `[batch]`, 1 to `time`: tokens of each row, first ones first.
            pooling: one of `POOLINGS` in place of the model's own.

        Returns:
            float32 `[batch, dimensions]`.

        Raises:
            UnsupportedCapability: the head classifies.
            InvalidRequest: a pooling that is not known, or shapes that do not fit.
        """
        self._require(Task.EMBED)
        if pooling is not None and pooling not in POOLINGS:
            raise InvalidRequest(
                f"pooling {pooling!r} is not known: {', '.join(POOLINGS)}", field="pooling"
            )
        return self._apply(hidden, lengths, pooling or self.pooling)

    def classify(self, hidden: FloatArray, lengths: npt.NDArray[np.integer]) -> FloatArray:
        """Return the raw logits of a padded batch, float32 `[batch, num_labels]`.

        Raises:
            UnsupportedCapability: the head embeds.
            InvalidRequest: shapes that do not fit.
        """
        self._require(Task.CLASSIFY)
        return self._apply(hidden, lengths, self.pooling)

    def _require(self, task: Task) -> None:
        if self.task is not task:
            raise UnsupportedCapability(f"this model does not {task}: its head is for {self.task}")

    def _apply(
        self, hidden: FloatArray, lengths: npt.NDArray[np.integer], pooling: str
    ) -> FloatArray:
        batch, time, _ = hidden.shape
        if lengths.shape != (batch,) or (batch and not 1 <= lengths.min() <= lengths.max() <= time):
            raise InvalidRequest(f"{batch} lengths of 1 to {time} tokens are needed")
        x = _pool(hidden, lengths, pooling)
        for layer in self._layers:
            x = layer(x)
        return np.ascontiguousarray(x, np.float32)


def _pool(hidden: FloatArray, lengths: npt.NDArray[np.integer], pooling: str) -> FloatArray:
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        last: FloatArray = hidden[np.arange(len(hidden)), lengths - 1]
        return last
    is_token = np.arange(hidden.shape[1]) < lengths[:, None]
    weights = is_token / lengths[:, None].astype(np.float32)
    # A product of matrices, one per row: numpy gives it to BLAS.
    mean: FloatArray = np.matmul(weights[:, None, :].astype(np.float32), hidden)[:, 0]
    return mean


def _read_pooling(operations: Sequence[Mapping[str, Any]], source: str) -> str:
    if not operations or operations[0].get("op") != "pool":
        raise ModelFailed(f"{source}: the first operation must be a pool")
    kind = operations[0].get("kind")
    if kind not in POOLINGS or operations[0].keys() != {"op", "kind"}:
        raise ModelFailed(f"{source}: operation 0: a pool of {', '.join(POOLINGS)} is needed")
    return str(kind)


def _read_dense(operation: Mapping[str, Any], arrays: Mapping[str, Any], where: str) -> _Dense:
    if operation.get("op") != "dense":
        raise ModelFailed(f"{where}: {operation.get('op')!r} is not known here")
    if operation.keys() != {"op", "weight", "bias", "activation"}:
        raise ModelFailed(f"{where}: weight, bias and activation are needed")
    activation = _ACTIVATIONS.get(str(operation["activation"]))
    if activation is None:
        raise ModelFailed(f"{where}: activation {operation['activation']!r} is not known")
    weight = _array(operation["weight"], arrays, where)
    bias = None if operation["bias"] is None else _array(operation["bias"], arrays, where)
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):  # noqa: PLR2004
        raise ModelFailed(f"{where}: shapes of weight and bias do not fit")
    return _Dense(weight, bias, activation)


def _array(name: Any, arrays: Mapping[str, Any], where: str) -> FloatArray:
    array = arrays.get(name)
    if array is None or array.dtype != np.float32:
        raise ModelFailed(f"{where}: there is no float32 array {name!r}")
    return np.ascontiguousarray(array)


def _read_arrays(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return {
                name.removesuffix(".npy"): _read_array(archive, name) for name in archive.namelist()
            }
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelFailed(f"{path}: {error}") from error


def _read_array(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """Read one member; `np.load` of the whole would leak the file when it is damaged."""
    with archive.open(name) as member:
        array: npt.NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        return array
