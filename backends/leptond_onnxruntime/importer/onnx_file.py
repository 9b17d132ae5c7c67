"""One ONNX file that somebody else wrote: what it takes and gives, and what of it is refused.

Its graph is read without its weights. Nothing of it runs here, and no path that it names is
followed out of its own folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto

from leptond.errors import InvalidRequest, UnsupportedCapability
from leptond_onnxruntime.importer import encoder_io as io
from leptond_onnxruntime.importer.graph_io import Precision

__all__ = ["OnnxFile"]

TOKEN_OUTPUTS = (io.LAST_HIDDEN_STATE, "token_embeddings")
POOLED_OUTPUTS = ("sentence_embedding",)

_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
_TOKENS_RANK, _POOLED_RANK = 3, 2
_MIN_WEIGHT_ELEMENTS = 1024


class OnnxFile:
    """An encoder's graph.

    Attributes:
        path: of the file.
        takes_types: whether it takes `token_type_ids`.
        outputs: names of its outputs that are served, hidden states and pooled embeddings.
        weight_files: what lies beside it and holds weights.

    Raises:
        InvalidRequest: it is no ONNX file, or not that of an encoder; names what is wrong.
        UnsupportedCapability: operators or types that are not served.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            model = onnx.load(path, load_external_data=False)
        except Exception as error:  # protobuf's own error and others, without a common base
            raise InvalidRequest(f"{path} is no ONNX file: {error}") from error
        self._graph = model.graph
        self._functions = {(function.domain, function.name) for function in model.functions}
        self._nodes = [
            *_nodes(model.graph.node),
            *(node for function in model.functions for node in _nodes(function.node)),
        ]
        self._tensors = [*_tensors(model.graph), *_attribute_tensors(self._nodes)]
        self._check_operators()
        self.weight_files = self._external_files()
        self.takes_types = self._check_inputs()
        self.outputs = self._find_outputs()

    @property
    def precision(self) -> Precision:
        """Of its weights: the narrowest type that any of them has."""
        kinds = {
            tensor.data_type
            for tensor in self._tensors
            if _num_elements(tensor.dims) >= _MIN_WEIGHT_ELEMENTS
        }
        if kinds & {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4}:
            return Precision.INT8
        return Precision.FLOAT16 if TensorProto.FLOAT16 in kinds else Precision.FLOAT32

    def is_pooled(self, output: str) -> bool:
        """Whether the output has a line per row."""
        return output in POOLED_OUTPUTS

    def copy(self, directory: Path, name: str) -> None:
        """Copy it as `name`, and the files of its weights, into `directory`.

        Raises:
            InvalidRequest: a file of its weights is called as one of ours.
        """
        shutil.copyfile(self.path, directory / name)
        for file in self.weight_files:
            target = directory / file.name
            if target.exists() or file.suffix in {".json", ".npz", ".toml", ".onnx"}:
                raise InvalidRequest(f"{self.path}: weights in a file called {file.name}")
            shutil.copyfile(file, target)

    def _check_operators(self) -> None:
        for node in self._nodes:
            if node.domain not in _DOMAINS and (node.domain, node.op_type) not in self._functions:
                raise UnsupportedCapability(
                    f"{self.path}: operator {node.op_type} of {node.domain!r} is not served: "
                    "custom operators are code that a file brings along"
                )

    def _external_files(self) -> Sequence[Path]:
        """Files that hold weights; they lie beside the graph."""
        folder = self.path.parent.resolve()
        names = {
            entry.value
            for tensor in self._tensors
            if tensor.data_location == TensorProto.EXTERNAL
            for entry in tensor.external_data
            if entry.key == "location"
        }
        files = []
        for name in sorted(names):
            file = folder / name
            if Path(name).name != name or file.resolve().parent != folder:
                raise InvalidRequest(f"{self.path}: weights outside its own folder: {name!r}")
            if not file.is_file():
                raise InvalidRequest(f"{self.path}: {name} is missing beside it")
            files.append(file)
        return files

    def _check_inputs(self) -> bool:
        """Check what it takes; answer whether token types are among it."""
        stored = {tensor.name for tensor in self._graph.initializer}
        inputs = {value.name: value for value in self._graph.input if value.name not in stored}
        needed, known = {io.INPUT_IDS, io.ATTENTION_MASK}, {io.TOKEN_TYPE_IDS}
        if missing := sorted(needed - inputs.keys()):
            raise InvalidRequest(
                f"{self.path} has no input {missing[0]}: it is no encoder's export"
            )
        if unknown := sorted(inputs.keys() - needed - known):
            raise UnsupportedCapability(f"{self.path}: input {unknown[0]} is not served")
        for name, value in inputs.items():
            if _type(value) != (TensorProto.INT64, 2):
                raise UnsupportedCapability(
                    f"{self.path}: input {name} must be int64 [rows, longest]"
                )
        return io.TOKEN_TYPE_IDS in inputs

    def _find_outputs(self) -> Sequence[str]:
        known = (*TOKEN_OUTPUTS, *POOLED_OUTPUTS)
        found = {value.name: value for value in self._graph.output if value.name in known}
        if not found:
            given = ", ".join(value.name for value in self._graph.output)
            raise UnsupportedCapability(
                f"{self.path} gives {given or 'nothing'}; served are {', '.join(known)}"
            )
        for name, value in found.items():
            kind, rank = _type(value)
            wanted = _POOLED_RANK if self.is_pooled(name) else _TOKENS_RANK
            # Some exporters leave the shape of a result open; the trial run sees it.
            if kind != TensorProto.FLOAT or rank not in (wanted, None):
                raise UnsupportedCapability(
                    f"{self.path}: output {name} must be float32 of rank {wanted}"
                )
        return [name for name in known if name in found]


def _type(value: onnx.ValueInfoProto) -> tuple[int, int | None]:
    """Return element type and rank; None when the rank is not told."""
    tensor = value.type.tensor_type
    return tensor.elem_type, len(tensor.shape.dim) if tensor.HasField("shape") else None


def _nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """All nodes, those of branches and loops included."""
    for node in nodes:
        yield node
        for graph in _branches(node):
            yield from _nodes(graph.node)


def _branches(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for branch in _branches(node):
            yield from _tensors(branch)


def _attribute_tensors(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _num_elements(dims: Sequence[int]) -> int:
    count = 1
    for size in dims:
        count *= size
    return count
