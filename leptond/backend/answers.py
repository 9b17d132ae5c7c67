"""The caller's side of one run: which rows are still open, and what they are given.

I1  A row gets one final chunk, and nothing after it or after its caller ended it.
I2  After an interrupt nothing is given any more; rows that are open stay without a final chunk.

Used on the thread of `run`, `interrupt` aside.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from leptond.backend.rows import BatchRow, EmittedChunk

__all__ = ["Answers"]

Emit = Callable[[int, EmittedChunk], bool]


class Answers:
    """Takes the chunks of one run.

    Args:
        interrupted: set when the run shall end.
    """

    def __init__(self, rows: Sequence[BatchRow], emit: Emit, interrupted: threading.Event) -> None:
        self._rows = rows
        self._emit = emit
        self._interrupted = interrupted
        self._open = set(range(len(rows)))

    @property
    def is_interrupted(self) -> bool:
        """Whether the run shall end."""
        return self._interrupted.is_set()

    def is_open(self, index: int) -> bool:
        """Whether the row still takes chunks."""
        return index in self._open and not self._interrupted.is_set()

    def give(self, index: int, chunk: EmittedChunk) -> bool:
        """Give an open row a chunk; False when it takes no more."""
        if not self.is_open(index):
            return False
        wants_more = self._emit(index, chunk)
        if chunk.is_final or not wants_more:
            self._open.discard(index)
            return False
        return not self._interrupted.is_set()

    def finish(self, index: int, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        """Give an open row its whole answer, in the caller's buffers where it named any."""
        if self.is_open(index):
            buffers = self._rows[index].outputs
            answer = {
                name: _in_buffer(tensor, buffers.get(name)) for name, tensor in tensors.items()
            }
            self.give(index, EmittedChunk(tensors=answer, is_final=True))

    def finish_empty(self, index: int) -> None:
        """Close an open row without anything more."""
        if self.is_open(index):
            self.give(index, EmittedChunk(is_final=True))


def _in_buffer(tensor: npt.NDArray[Any], buffer: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    if buffer is None:
        return tensor
    np.copyto(buffer, tensor)
    return buffer
