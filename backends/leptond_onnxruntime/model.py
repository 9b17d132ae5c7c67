"""Loaded graphs of one decoder; the sessions of a model share them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from leptond.backend import (
    Capabilities,
    MemoryEstimate,
    ModelSource,
    Progress,
    SessionKind,
    SessionOptions,
)
from leptond.errors import InvariantViolation, ModelFailed
from leptond.types import Task
from leptond_onnxruntime.arena import ArenaLayout
from leptond_onnxruntime.device import CpuDevice, Device, find_device
from leptond_onnxruntime.graphs import Graph
from leptond_onnxruntime.head_runner import MAX_HEAD_ROWS
from leptond_onnxruntime.importer.graph_io import BODY_FILE, HEAD_FILE, GraphSpec, Precision
from leptond_onnxruntime.options import EngineOptions, check_session_options
from leptond_onnxruntime.runs import RunLimits
from leptond_onnxruntime.session import OnnxStepSession

__all__ = ["MAX_SLOTS", "OnnxModel", "estimate_model"]

_LOG = logging.getLogger(__name__)

MAX_SLOTS = 256
"""A limit of ours: rows of a step beyond it would no longer gain from each other."""

_LIMITS = RunLimits()

# Resident bytes per byte on disk once both graphs are loaded on a CPU. Kernels repack weights; a
# tied 8-bit embedding is kept twice; without float16 units in the processor, float16 weights are
# widened when they are loaded. Measured on SmolLM2 135M by
# tests/integration/engine.
_RESIDENT_PER_FILE_BYTE = {Precision.FLOAT32: 1.0, Precision.INT8: 1.2, Precision.FLOAT16: 2.4}
# Activations of a run, in float32 values per new token and hidden unit, measured there too; and
# copies of the logits that a run of the head makes.
_ACTIVATIONS_PER_HIDDEN_UNIT = 52
_LOGIT_COPIES = 3


class OnnxModel:
    """One variant in memory, and what it can do."""

    def __init__(self, spec: GraphSpec, body: Graph, head: Graph, device: Device) -> None:
        self._spec = spec
        self._graphs: tuple[Graph, Graph] | None = (body, head)
        self._device = device
        self._sessions: list[OnnxStepSession] = []
        self._capabilities = Capabilities(
            kind=SessionKind.STEP,
            tasks=frozenset({Task.GENERATE, Task.CHAT}),
            devices=(device.name,),
            vocab_size=spec.vocab_size,
            max_slots=MAX_SLOTS,
            max_context_tokens=spec.max_positions,
            # A chunk beside a decode row moves its attention to another kernel, which differs by
            # 2e-5 in float32; rounding activations to 8 bits makes 0.3 of that.
            is_deterministic=False,
            ride_along_tokens=_LIMITS.ride_along_tokens,
            is_streaming=True,
        )

    @classmethod
    def load(cls, source: ModelSource, progress: Progress) -> OnnxModel:
        """Load both graphs; blocks; called on a loader thread.

        Raises:
            BackendUnavailable: the device is absent.
            UnsupportedCapability: the device has no kernels for the variant's precision.
            ModelFailed: the files or the options are bad.
        """
        options = EngineOptions.from_mapping(source.options, source.num_cores)
        device = find_device(source.device)
        spec = _read_spec(source)
        device.check_precision(spec.precision)
        progress("body", 0.0)
        body = Graph.open(source.directory / BODY_FILE, device, options)
        progress("head", 0.8)
        head = Graph.open(source.directory / HEAD_FILE, device, options)
        progress("ready", 1.0)
        _LOG.info(
            "graphs_loaded directory=%s precision=%s device=%s num_threads=%d spin_us=%d",
            source.directory, spec.precision, device.name, options.actual_threads, options.spin_us,
        )  # fmt: skip
        return cls(spec, body, head, device)

    @property
    def capabilities(self) -> Capabilities:
        """What this model does; constant."""
        return self._capabilities

    def open_session(self, options: SessionOptions) -> OnnxStepSession:
        """A new executor with a KV arena of its own; called on the thread that will own it.

        Raises:
            InvalidRequest: more slots or longer ones than the capabilities say, or a number of
                threads, which is an option of the load.
            MemoryBudgetExceeded: no room for the arena.
        """
        if self._graphs is None:
            raise InvariantViolation("a closed model was asked for a session")
        check_session_options(options, MAX_SLOTS, self._spec.max_positions)
        body, head = self._graphs
        session = OnnxStepSession(
            self._spec,
            body,
            head,
            self._device.open_arena(_layout(self._spec, options)),
            max_tokens=options.max_tokens,
            limits=_LIMITS,
        )
        alive = [opened for opened in self._sessions if not opened.is_shut_down]
        self._sessions = [*alive, session]
        return session

    def close(self) -> None:
        """Free the weights; idempotent. A session that lives on is an `InvariantViolation`."""
        if not all(session.is_shut_down for session in self._sessions):
            raise InvariantViolation("a model was closed before its session")
        self._sessions.clear()
        self._graphs = None


def estimate_model(source: ModelSource, options: SessionOptions) -> MemoryEstimate:
    """What loading would take; reads file sizes and `graph.json` only.

    Raises:
        ModelFailed: the files are not those of a model.
    """
    spec = _read_spec(source)
    num_file_bytes = sum(_file_sizes(source.directory))
    activations = _LIMITS.max_run_tokens * spec.hidden_size * _ACTIVATIONS_PER_HIDDEN_UNIT
    logits = MAX_HEAD_ROWS * spec.vocab_size * _LOGIT_COPIES
    float_bytes = np.dtype(np.float32).itemsize
    weights = int(num_file_bytes * _RESIDENT_PER_FILE_BYTE[spec.precision])
    layout = _layout(spec, options)
    # Pages behind the last token are never written; device memory is resident in full.
    num_positions = options.max_tokens if source.device == CpuDevice.name else layout.max_len
    return MemoryEstimate(
        weights_bytes=weights + (activations + logits) * float_bytes,
        slot_bytes=layout.num_slabs * layout.num_kv_heads * num_positions * layout.token_bytes,
    )


def _layout(spec: GraphSpec, options: SessionOptions) -> ArenaLayout:
    """Slots with room for the padding of a row that rides along, which is never written."""
    return ArenaLayout.fitted(
        num_layers=spec.num_layers,
        num_slots=options.num_slots,
        num_kv_heads=spec.num_kv_heads,
        min_len=options.max_tokens + _LIMITS.ride_along_tokens,
        head_dim=spec.head_dim,
        dtype=np.dtype(spec.kv_dtype),
    )


def _read_spec(source: ModelSource) -> GraphSpec:
    spec = GraphSpec.read(source.directory)
    if source.precision != spec.precision:
        raise ModelFailed(
            f"{source.directory}: the variant says {source.precision}, its graphs {spec.precision}"
        )
    return spec


def _file_sizes(directory: Path) -> list[int]:
    return [path.stat().st_size for path in directory.iterdir() if path.is_file()]
