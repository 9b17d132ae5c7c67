"""The range of the int8 weights of a finished file, and how it is made smaller.

The engine's converters write weights of up to 127 whatever the processor; see
`leptond_ctranslate2.processor`, I1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from leptond_ctranslate2.importer.model_file import ModelFile

__all__ = ["largest_int8", "reduce_int8"]

_SLAB_ROWS = 4096


def largest_int8(model: ModelFile) -> int:
    """Return the largest magnitude of an int8 weight; 0 when there are none."""
    largest = 0
    for name in _int8_names(model):
        weights = model.values(name)
        for begin in range(0, len(weights), _SLAB_ROWS):
            slab = weights[begin : begin + _SLAB_ROWS].astype(np.int16)
            largest = max(largest, int(np.abs(slab).max(initial=0)))
    return largest


def reduce_int8(model: ModelFile, largest: int, limit: int) -> None:
    """Scale weights of up to `largest` so that none is beyond `limit`, and their scales alike.

    That rounds a second time: an error of up to half a step of the smaller range.
    """
    factor = np.float32(limit / largest)
    for name in _int8_names(model):
        weights = model.values(name)
        for begin in range(0, len(weights), _SLAB_ROWS):
            slab = weights[begin : begin + _SLAB_ROWS]
            slab[...] = np.rint(slab * factor)
        scales = model.values(f"{name}_scale")
        scales *= factor
    model.flush()


def _int8_names(model: ModelFile) -> Iterator[str]:
    """Name each quantised weight once, whatever its aliases."""
    seen = set()
    for name, variable in model.variables.items():
        is_weight = variable.type_name == "int8" and f"{name}_scale" in model.variables
        if is_weight and variable.begin not in seen:
            seen.add(variable.begin)
            yield name
