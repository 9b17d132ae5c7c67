"""Typed access to one ONNX Runtime session: the border behind which the engine is untyped.

`Graph.open` runs on a loader thread; a `Binding` belongs to the worker thread of its session. Runs
release the GIL.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from leptond.errors import BackendCrashed, BackendFault, ModelFailed
from leptond_onnxruntime.device import Device
from leptond_onnxruntime.options import EngineOptions

__all__ = ["Binding", "Graph"]

_LOG = logging.getLogger(__name__)

_LOG_NOTHING = 4  # ORT_LOGGING_LEVEL_FATAL: errors are raised, and told once by who catches them


class Graph:
    """A loaded graph, shared by every session of a model."""

    def __init__(self, session: Any, device: Device) -> None:
        self._session = session
        self._device = device

    @classmethod
    def open(cls, path: Path, device: Device, options: EngineOptions) -> Graph:
        """Load the graph at `path` and its weights.

        Raises:
            BackendUnavailable: the device did not start.
            ModelFailed: the files are missing or damaged.
        """
        settings = ort.SessionOptions()
        settings.log_severity_level = _LOG_NOTHING
        settings.intra_op_num_threads = options.actual_threads
        for key, value in _thread_settings(options).items():
            settings.add_session_config_entry(key, value)
        try:
            session = ort.InferenceSession(
                path, settings, providers=list(device.providers), enable_fallback=0
            )
        except Exception as error:  # pybind11 gives its own classes, without a common base
            _LOG.warning("graph_unreadable path=%s reason=%s", path, error)
            raise ModelFailed(f"{path}: ONNX Runtime cannot load it") from error
        device.check_providers(session.get_providers())
        return cls(session, device)

    def bind(self) -> Binding:
        """A new set of bound inputs and outputs."""
        return Binding(self._session, self._device)


def _thread_settings(options: EngineOptions) -> dict[str, str]:
    """Entries of ONNX Runtime's session configuration."""
    if not options.spin_us:
        return {"session.intra_op.allow_spinning": "0"}
    return {
        "session.intra_op.allow_spinning": "1",
        "session.intra_op.spin_duration_us": str(options.spin_us),
        # Body and head have a pool of threads each, and so has every other model: none may spin
        # on the cores that the next run needs.
        "session.force_spinning_stop": "1",
    }


class Binding:
    """Inputs and outputs of one graph, each bound until it is bound again, and its runs.

    Arrays that are bound are kept alive. One that is bound again is not touched when the device
    reads and writes host memory: with a cold cache, a binding costs 10 µs.
    """

    def __init__(self, session: Any, device: Device) -> None:
        self._session = session
        self._device = device
        self._binding = session.io_binding()
        self._arrays: dict[str, npt.NDArray[Any]] = {}

    def feed(self, name: str, array: npt.NDArray[Any]) -> None:
        """Bind a host array as input; other devices get a copy, made now."""
        if self._arrays.get(name) is array and self._device.uses_host_memory:
            return
        self._binding.bind_cpu_input(name, array)
        self._arrays[name] = array

    def fill(self, name: str, array: npt.NDArray[Any]) -> None:
        """Bind a C-contiguous host array as output."""
        if self._arrays.get(name) is array:
            return
        self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._arrays[name] = array

    def share(
        self,
        source: str,
        target: str,
        address: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        """Bind device memory as input `source` and output `target`: updated in place."""
        place = (self._device.ort_type, self._device.ort_index, dtype.type, shape, address)
        self._binding.bind_input(source, *place)
        self._binding.bind_output(target, *place)

    def run(self) -> None:
        """Run the graph on what is bound.

        Raises:
            BackendFault: the run failed.
            BackendCrashed: it failed, and so will every run after it.
        """
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # pybind11 gives its own classes, without a common base
            message = f"ONNX Runtime failed a run: {error}"
            if self._device.is_fatal(message):
                raise BackendCrashed(message) from error
            raise BackendFault(message) from error
