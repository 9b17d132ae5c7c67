"""Where a model runs, and which precisions the engine computes efficiently there."""

from __future__ import annotations

import re
from dataclasses import dataclass

import ctranslate2

from leptond.errors import BackendUnavailable, UnsupportedCapability
from leptond_ctranslate2.precision import Precision

__all__ = ["Device", "find_device", "list_devices"]

_CUDA_NAME = re.compile(r"cuda(?::(\d{1,3}))?")


@dataclass(frozen=True, slots=True)
class Device:
    """A device of this machine, as the engine counts it."""

    kind: str
    index: int

    @property
    def name(self) -> str:
        """As configuration names it: `cpu`, `cuda:0`."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What the engine computes efficiently on it."""
        types = set(ctranslate2.get_supported_compute_types(self.kind, self.index))
        return tuple(precision for precision in Precision if precision.value in types)

    def check(self, precision: Precision) -> None:
        """Refuse a precision that the engine would widen behind the operator's back.

        Raises:
            UnsupportedCapability: naming what the device supports.
        """
        supported = self.precisions
        if precision not in supported:
            raise UnsupportedCapability(
                f"CTranslate2 does not compute {precision} efficiently on device {self.name}; "
                f"it supports {', '.join(supported)} there",
                field="precision",
            )


def find_device(name: str) -> Device:
    """Return the device that `name` means.

    Raises:
        BackendUnavailable: this machine, or this build of the engine, has no such device.
    """
    if name == "cpu":
        return Device("cpu", 0)
    match = _CUDA_NAME.fullmatch(name)
    if match is None:
        raise BackendUnavailable(f"device {name!r} is neither cpu nor cuda:N")
    index, count = int(match.group(1) or 0), ctranslate2.get_cuda_device_count()
    if index >= count:
        raise BackendUnavailable(
            f"device {name} is not there: CTranslate2 {ctranslate2.__version__} sees "
            f"{count} CUDA devices",
            details={"device": name},
        )
    return Device("cuda", index)


def list_devices() -> list[Device]:
    """Return every device that the engine sees."""
    gpus = range(ctranslate2.get_cuda_device_count())
    return [Device("cpu", 0), *(Device("cuda", index) for index in gpus)]
