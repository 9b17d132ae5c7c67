"""Where a model runs: the one place for code that differs between the CPU and CUDA.

The rest of the plug-in asks a device for session providers, for an arena, and whether an error
leaves the session usable. The CUDA side has not been run on CUDA (docs/adr/0004-engine.md).
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from leptond.errors import (
    BackendCrashed,
    BackendUnavailable,
    MemoryBudgetExceeded,
    UnsupportedCapability,
)
from leptond_onnxruntime.arena import ArenaLayout, HostArena, KvArena
from leptond_onnxruntime.importer.graph_io import Precision

__all__ = [
    "CpuDevice",
    "CudaArena",
    "CudaDevice",
    "CudaRuntime",
    "Device",
    "StridedCopy",
    "find_device",
]

Provider = str | tuple[str, dict[str, Any]]

_CUDA_PROVIDER = "CUDAExecutionProvider"
_CPU_PROVIDER = "CPUExecutionProvider"
_CUDA_NAME = re.compile(r"cuda(?::(\d{1,3}))?")
_DEVICE_TO_DEVICE = 3  # cudaMemcpyKind
_MAPS = Path("/proc/self/maps")


class Device(Protocol):
    """A device that this process can use."""

    @property
    def name(self) -> str:
        """As configuration names it: `cpu`, `cuda:0`."""
        ...

    @property
    def ort_type(self) -> str:
        """ONNX Runtime's name of the kind of memory."""
        ...

    @property
    def ort_index(self) -> int:
        """Which device of that kind."""
        ...

    @property
    def providers(self) -> Sequence[Provider]:
        """Execution providers of a session, best first."""
        ...

    @property
    def uses_host_memory(self) -> bool:
        """Whether a run reads bound host arrays when it starts; otherwise when they are bound."""
        ...

    def check_precision(self, precision: Precision) -> None:
        """Raise `UnsupportedCapability` when the device has no kernels for it."""
        ...

    def check_providers(self, actual: Sequence[str]) -> None:
        """Raise `BackendUnavailable` when a session came up without the device's provider."""
        ...

    def open_arena(self, layout: ArenaLayout) -> KvArena:
        """Memory for keys and values.

        Raises:
            MemoryBudgetExceeded: there is not enough.
        """
        ...

    def is_fatal(self, message: str) -> bool:
        """Whether an engine error with this message leaves the device unusable."""
        ...


def find_device(name: str) -> Device:
    """The device that `name` means.

    Raises:
        BackendUnavailable: there is no such device for this build of ONNX Runtime.
    """
    if name == "cpu":
        return CpuDevice()
    match = _CUDA_NAME.fullmatch(name)
    if match is None:
        raise BackendUnavailable(f"device {name!r} is neither cpu nor cuda:N")
    available = ort.get_available_providers()
    if _CUDA_PROVIDER not in available:
        raise BackendUnavailable(
            f"device {name} needs the {_CUDA_PROVIDER} and this build of ONNX Runtime "
            f"{ort.__version__} has only {', '.join(available)}: uninstall onnxruntime and "
            "install 'leptond[cuda]'",
            details={"device": name},
        )
    return CudaDevice(int(match.group(1) or 0))


class CpuDevice:
    """The processor."""

    name = "cpu"
    ort_type = "cpu"
    ort_index = 0
    uses_host_memory = True
    providers: Sequence[Provider] = (_CPU_PROVIDER,)

    def check_precision(self, precision: Precision) -> None:
        """Every precision runs."""

    def check_providers(self, actual: Sequence[str]) -> None:
        """The CPU's provider is always there."""

    def open_arena(self, layout: ArenaLayout) -> KvArena:
        """Pages that come as they are written."""
        return HostArena(layout)

    def is_fatal(self, message: str) -> bool:
        """No error of a CPU kernel outlasts its run."""
        return False


class CudaDevice:
    """One NVIDIA GPU."""

    ort_type = "cuda"
    uses_host_memory = False

    def __init__(self, index: int) -> None:
        self.ort_index = index
        self.name = f"cuda:{index}"
        self.providers: Sequence[Provider] = (
            (_CUDA_PROVIDER, {"device_id": index}),
            _CPU_PROVIDER,
        )

    def check_precision(self, precision: Precision) -> None:
        """GroupQueryAttention's CUDA kernels take 16-bit types only."""
        if precision is not Precision.FLOAT16:
            raise UnsupportedCapability(
                f"device {self.name} runs float16 models; this variant is {precision}: "
                "import it again with --quantization float16",
                field="precision",
            )

    def check_providers(self, actual: Sequence[str]) -> None:
        """ONNX Runtime goes on with the CPU when CUDA does not start: that is refused."""
        if _CUDA_PROVIDER not in actual:
            raise BackendUnavailable(
                f"device {self.name} did not start: ONNX Runtime fell back to "
                f"{', '.join(actual)}. Is there a GPU {self.ort_index}, and do the driver, CUDA "
                "and cuDNN fit this build?",
                details={"device": self.name},
            )

    def open_arena(self, layout: ArenaLayout) -> KvArena:
        """Device memory, resident in full."""
        try:
            memory = ort.OrtValue.ortvalue_from_shape_and_type(
                [layout.num_bytes], np.uint8, self.ort_type, self.ort_index
            )
        except Exception as error:  # pybind11 gives its own classes, without a common base
            raise MemoryBudgetExceeded(
                f"device {self.name} has no {layout.num_bytes} bytes for keys and values: {error}"
            ) from error
        return CudaArena(layout, memory, CudaRuntime.loaded(self.ort_index))

    def is_fatal(self, message: str) -> bool:
        """After a CUDA failure other than a lack of memory, every later call fails."""
        return "CUDA failure" in message and "out of memory" not in message


class StridedCopy(Protocol):
    """The two calls of the CUDA runtime that an arena needs."""

    def copy(self, target: int, source: int, pitch: int, width: int, height: int) -> None:
        """Copy `height` pieces of `width` bytes that are `pitch` bytes apart; may be deferred."""
        ...

    def wait(self) -> None:
        """Wait until all copies are made."""
        ...


class CudaArena:
    """The arena in one piece of device memory.

    Args:
        memory: an `OrtValue` of `layout.num_bytes` bytes.
        runtime: copies within that memory.
    """

    def __init__(self, layout: ArenaLayout, memory: Any, runtime: StridedCopy) -> None:
        self._layout = layout
        self._memory = memory
        self._runtime = runtime
        self._address = int(memory.data_ptr())

    @property
    def layout(self) -> ArenaLayout:
        """Its sizes."""
        return self._layout

    @property
    def address(self) -> int:
        """Where it begins, in device addresses."""
        return self._address

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Copy positions between two slots: one strided copy per slab."""
        layout = self._layout
        for slab in range(layout.num_slabs):
            self._runtime.copy(
                self._address + layout.offset(slab, target),
                self._address + layout.offset(slab, source),
                pitch=layout.strip_bytes,
                width=num_tokens * layout.token_bytes,
                height=layout.num_kv_heads,
            )
        # ONNX Runtime has a stream of its own, which does not wait for these copies.
        self._runtime.wait()

    def give_back(self, slot: int) -> None:
        """Nothing: device memory has no pages to return."""

    def resident_bytes(self) -> int:
        """All of it, until it is closed."""
        return 0 if self._memory is None else self._layout.num_bytes

    def close(self) -> None:
        """Free the memory; idempotent."""
        self._memory = None


class CudaRuntime:
    """`StridedCopy` by the CUDA runtime, on one device.

    Args:
        library: the runtime library; its functions return a CUDA error code.
        index: of the device.
    """

    def __init__(self, library: Any, index: int) -> None:
        self._library = library
        self._index = index

    @classmethod
    def loaded(cls, index: int) -> CudaRuntime:
        """The very library that ONNX Runtime loaded.

        Raises:
            BackendUnavailable: it loaded none.
        """
        maps = _MAPS.read_text(encoding="utf-8").splitlines()
        paths = {line.split()[-1] for line in maps if "libcudart" in line}
        if not paths:
            raise BackendUnavailable("the CUDA runtime library is not loaded")
        library = ctypes.CDLL(min(paths))
        library.cudaMemcpy2D.argtypes = (
            *(ctypes.c_void_p, ctypes.c_size_t) * 2,
            *(ctypes.c_size_t,) * 2,
            ctypes.c_int,
        )
        return cls(library, index)

    def copy(self, target: int, source: int, pitch: int, width: int, height: int) -> None:
        """`cudaMemcpy2D` from device to device."""
        # The current device belongs to the thread.
        self._check("cudaSetDevice", self._library.cudaSetDevice(self._index))
        code = self._library.cudaMemcpy2D(
            target, pitch, source, pitch, width, height, _DEVICE_TO_DEVICE
        )
        self._check("cudaMemcpy2D", code)

    def wait(self) -> None:
        """`cudaDeviceSynchronize`."""
        self._check("cudaDeviceSynchronize", self._library.cudaDeviceSynchronize())

    @staticmethod
    def _check(call: str, code: int) -> None:
        if code != 0:
            raise BackendCrashed(f"{call} failed with CUDA error {code}")
