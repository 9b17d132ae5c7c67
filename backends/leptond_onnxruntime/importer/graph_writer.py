"""Writes ONNX graphs whose weights lie in one external file that several graphs may share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

__all__ = ["MICROSOFT", "GraphWriter", "StoredTensor", "WeightFile"]

MICROSOFT = "com.microsoft"
_OPSETS = {"": 21, MICROSOFT: 1}
_IR_VERSION = 10
# ONNX Runtime maps external weights; page-aligned tensors share no page with a neighbour.
_ALIGNMENT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in the weight file; graphs refer to it, under any shape of as many elements."""

    offset: int
    num_bytes: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class WeightFile:
    """The external file, written once from front to back; closed by `with`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("xb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def store(self, array: npt.NDArray[Any]) -> StoredTensor:
        """Append `array` and return where it lies."""
        offset = -(-self._file.tell() // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        self._file.seek(offset)
        contiguous = np.ascontiguousarray(array)
        self._file.write(contiguous.data)
        return StoredTensor(offset, contiguous.nbytes, contiguous.dtype, contiguous.shape)


class GraphWriter:
    """Collects the nodes of one graph; names of nodes follow from their first output.

    `prefix` is put before the outputs of all nodes: a branch may use the names of the graph
    around it as inputs, so its own must differ.
    """

    def __init__(self, name: str, weights: WeightFile, prefix: str = "") -> None:
        self.weights = weights
        self.prefix = prefix
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> str:
        """Declare an input; a string in `shape` names a dimension that varies."""
        self._inputs.append(_value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> str:
        """Declare an output."""
        self._outputs.append(_value_info(name, dtype, shape))
        return name

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Add a small constant inside the graph; the same name twice is one constant."""
        self._initializers[name] = onnx.numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def weight(self, name: str, stored: StoredTensor, shape: Sequence[int] | None = None) -> str:
        """Refer to a tensor of the weight file, as `shape` if one is given."""
        tensor = onnx.TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(stored.dtype),
            dims=stored.shape if shape is None else shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        for key, value in (
            ("location", self.weights.path.name),
            ("offset", stored.offset),
            ("length", stored.num_bytes),
        ):
            tensor.external_data.add(key=key, value=str(value))
        self._initializers[name] = tensor
        return name

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: str | Sequence[str],
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node and return its first output; "" stands for an absent input or output."""
        given = [outputs] if isinstance(outputs, str) else outputs
        names = [name and self.prefix + name for name in given]
        self._nodes.append(
            helper.make_node(
                operator, inputs, names, name=f"{names[0]}/{operator}", domain=domain, **attributes
            )
        )
        return names[0]

    def cast(self, x: str, name: str, dtype: npt.DTypeLike) -> str:
        """Add a conversion of `x` to `dtype`."""
        return self.node("Cast", [x], name, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def branch(self, name: str) -> GraphWriter:
        """Return an empty graph for `choose`; it sees everything that this one has."""
        return GraphWriter(name, self.weights, f"{self.prefix}{name}/")

    def choose(
        self,
        condition: str,
        then: tuple[GraphWriter, Sequence[str]],
        otherwise: tuple[GraphWriter, Sequence[str]],
        outputs: Mapping[str, np.dtype[Any]],
    ) -> list[str]:
        """Add an `If`: each branch comes with its names for `outputs`; return the outputs."""
        graphs = []
        for branch, names in (then, otherwise):
            for name, dtype in zip(names, outputs.values(), strict=True):
                element_type = helper.np_dtype_to_tensor_dtype(dtype)
                branch._outputs.append(helper.make_tensor_value_info(name, element_type, None))
            graphs.append(branch._graph())
        self.node("If", [condition], list(outputs), then_branch=graphs[0], else_branch=graphs[1])
        return [self.prefix + name for name in outputs]

    def save(self, path: Path) -> None:
        """Write the graph; the weight file must lie in the same directory."""
        opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
        model = helper.make_model(
            self._graph(), opset_imports=opsets, ir_version=_IR_VERSION, producer_name="leptond"
        )
        path.write_bytes(model.SerializeToString(deterministic=True))

    def _graph(self) -> onnx.GraphProto:
        return helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, list(self._initializers.values())
        )


def _value_info(name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    element_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, element_type, shape)
