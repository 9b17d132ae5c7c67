"""Tables of the rotary embedding, with all that changes its angles folded in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from leptond.checkpoint import RotaryEmbedding

__all__ = ["rotary_tables"]


def rotary_tables(
    rotary: RotaryEmbedding, max_positions: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return cosines and sines, each float32 `[max_positions, rotary.dim / 2]`.

    Angles are computed in float64: at position 100 000 a float32 angle is off by 0.004.
    """
    exponents = np.arange(0, rotary.dim, 2, dtype=np.float64) / rotary.dim
    frequencies = rotary.theta**-exponents / rotary.linear_factor
    if rotary.frequency_factors is not None:
        frequencies /= np.asarray(rotary.frequency_factors)
    angles = np.arange(max_positions)[:, np.newaxis] * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
