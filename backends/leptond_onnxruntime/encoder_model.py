"""The loaded graph of one encoder; the sessions of a model share it."""

from __future__ import annotations

import logging

from leptond.backend import (
    Capabilities,
    MemoryEstimate,
    ModelSource,
    Progress,
    SessionKind,
    SessionOptions,
)
from leptond.backend.heads import Head
from leptond.errors import InvariantViolation, ModelFailed, UnsupportedCapability
from leptond_onnxruntime.device import CpuDevice, find_device
from leptond_onnxruntime.encoder_session import MAX_RUN_CELLS, EncoderSession
from leptond_onnxruntime.graphs import Graph
from leptond_onnxruntime.importer.encoder_io import ENCODER_FILE, ENCODER_SPEC_FILE, EncoderSpec
from leptond_onnxruntime.importer.graph_io import Precision
from leptond_onnxruntime.options import EngineOptions, check_session_options

__all__ = ["MAX_ROWS", "EncoderModel", "estimate_encoder", "is_encoder"]

_LOG = logging.getLogger(__name__)

MAX_ROWS = 256
"""A limit of ours: rows of a call beyond it would no longer gain from each other."""

_FLOAT_BYTES = 4
_TOKEN_BYTES = 3 * 8  # ids, mask and types, int64
# As for decoders (`model.py`). Weights inside a graph's own file are read before they are kept.
_RESIDENT_PER_FILE_BYTE = {Precision.FLOAT32: 1.1, Precision.INT8: 1.4, Precision.FLOAT16: 2.4}
# Copies that the engine holds of a layer's hidden rows (q, k and v packed, by row and split among
# them), of its feed-forward block and of its attention's scores. Measured on MiniLM.
_HIDDEN_COPIES = 16
_FFN_COPIES = 2
_SCORE_COPIES = 2


class EncoderModel:
    """One variant in memory, and what it can do."""

    def __init__(self, spec: EncoderSpec, graph: Graph, head: Head) -> None:
        self._spec = spec
        self._graph: Graph | None = graph
        self._head = head
        head.num_outputs(spec.hidden_size)
        self._sessions: list[EncoderSession] = []
        self._capabilities = Capabilities(
            kind=SessionKind.BATCH,
            tasks=frozenset({head.task}),
            devices=(CpuDevice.name,),
            vocab_size=spec.vocab_size,
            max_context_tokens=spec.max_positions,
            max_batch_rows=MAX_ROWS,
            # Company changes how matrices are cut, which moves sums by 1e-6.
            is_deterministic=False,
            is_cancellable=True,
            sampling_options=frozenset(),
        )

    @classmethod
    def load(cls, source: ModelSource, progress: Progress) -> EncoderModel:
        """Load the graph; blocks; called on a loader thread.

        Raises:
            BackendUnavailable: the device is absent.
            UnsupportedCapability: it is not the processor.
            ModelFailed: the files or the options are bad.
        """
        options = EngineOptions.from_mapping(source.options, source.num_cores)
        device = find_device(source.device)
        spec = _read_spec(source)
        if device.name != CpuDevice.name:
            raise UnsupportedCapability(
                f"encoders of this engine run on the cpu, not on {device.name}", field="device"
            )
        head = Head.load(source.directory)
        progress("graph", 0.0)
        graph = Graph.open(source.directory / ENCODER_FILE, device, options)
        progress("ready", 1.0)
        _LOG.info(
            "graph_loaded directory=%s precision=%s device=%s num_threads=%d spin_us=%d",
            source.directory, spec.precision, device.name, options.actual_threads, options.spin_us,
        )  # fmt: skip
        return cls(spec, graph, head)

    @property
    def capabilities(self) -> Capabilities:
        """What this model does; constant."""
        return self._capabilities

    def open_session(self, options: SessionOptions) -> EncoderSession:
        """A new executor; called on the thread that will own it.

        `num_slots` is the most rows of its runs, and `max_tokens` of a row.

        Raises:
            InvalidRequest: more rows or longer ones than the capabilities say, or a number of
                threads, which is an option of the load.
        """
        if self._graph is None:
            raise InvariantViolation("a closed model was asked for a session")
        check_session_options(options, MAX_ROWS, self._spec.max_positions)
        session = EncoderSession(
            self._spec,
            self._graph,
            self._head,
            max_rows=options.num_slots,
            max_tokens=options.max_tokens,
        )
        alive = [opened for opened in self._sessions if not opened.is_shut_down]
        self._sessions = [*alive, session]
        return session

    def close(self) -> None:
        """Free the weights; idempotent. A session that lives on is an `InvariantViolation`."""
        if not all(session.is_shut_down for session in self._sessions):
            raise InvariantViolation("a model was closed before its session")
        self._sessions.clear()
        self._graph = None


def is_encoder(source: ModelSource) -> bool:
    """Whether the variant holds an encoder's graph."""
    return (source.directory / ENCODER_SPEC_FILE).is_file()


def estimate_encoder(source: ModelSource, options: SessionOptions) -> MemoryEstimate:
    """What loading would take; reads file sizes and `encoder_graph.json` only.

    Engine runs are bounded whatever the number of rows, so they are counted with the weights.

    Raises:
        ModelFailed: the files are not those of a model.
    """
    spec = _read_spec(source)
    num_file_bytes = sum(
        path.stat().st_size for path in source.directory.iterdir() if path.is_file()
    )
    longest = min(options.max_tokens or spec.max_positions, spec.max_positions)
    num_cells = max(MAX_RUN_CELLS, longest)
    per_cell = (
        _HIDDEN_COPIES * spec.hidden_size
        + _FFN_COPIES * spec.ffn_size
        + _SCORE_COPIES * spec.num_heads * longest
    )
    weights = int(num_file_bytes * _RESIDENT_PER_FILE_BYTE[spec.precision])
    return MemoryEstimate(
        weights_bytes=weights + num_cells * per_cell * _FLOAT_BYTES,
        slot_bytes=longest * _TOKEN_BYTES,
    )


def _read_spec(source: ModelSource) -> EncoderSpec:
    spec = EncoderSpec.read(source.directory)
    if source.precision != spec.precision:
        raise ModelFailed(
            f"{source.directory}: the variant says {source.precision}, its graph {spec.precision}"
        )
    return spec
