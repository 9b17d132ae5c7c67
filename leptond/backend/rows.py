"""What goes into an engine's session and what comes out of it: rows, picks, results, chunks.

Values only; who gives them to whom is said in `leptond.backend.spi`. Built and read on a worker's
thread; arrays are never copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BatchRow", "EmittedChunk", "FloatArray", "RowPick", "StepResult", "StepRow"]

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class RowPick:
    """How a row's logits are processed before its candidates are taken.

    Applied in this order: `l > 0 ? l / repetition : l * repetition`, `+ bias`, `/ temperature`.

    Attributes:
        temperature: > 0.
        repetition, bias: float32 `[vocab_size]`; None when off. Minus infinity masks a token.
    """

    temperature: float = 1.0
    repetition: FloatArray | None = None
    bias: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StepRow:
    """New tokens of one slot in one step: a prompt chunk, a decode token, or drafts.

    Attributes:
        slot: an open slot; at most one row per slot and step.
        token_ids: at least one token, appended to what the slot holds.
        num_logits: how many of the last positions want logits; 0 for a chunk that is not last.
        pick: the same for each wanted position of the row; None when raw logits will do.
    """

    slot: int
    token_ids: Sequence[int]
    num_logits: int = 1
    pick: RowPick | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """Answers of one step: one line per wanted position, row after row in the order given.

    Attributes:
        candidate_ids: int64 `[num_wanted, k]`, the k best processed logits, best first;
            k is the session's own (64, or the vocabulary when that is smaller).
        candidate_logits: float32 `[num_wanted, k]`, processed logits.
        log_normalizer: float32 `[num_wanted]`, logsumexp of all processed logits.
        raw_log_normalizer: float32 `[num_wanted]`, logsumexp of all raw logits.
        logits: float32 `[num_wanted, vocab_size]`, raw; a view that the next step overwrites.
    """

    candidate_ids: npt.NDArray[np.int64]
    candidate_logits: FloatArray
    log_normalizer: FloatArray
    raw_log_normalizer: FloatArray
    logits: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class BatchRow:
    """One input of a whole call: token ids, or named tensors.

    Attributes:
        outputs: destination buffers by output name; the session writes there and nowhere else.
        options: the task's own options; rows of one call may be required to share them.
    """

    token_ids: Sequence[int] = ()
    tensors: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    outputs: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class EmittedChunk:
    """Part of a row's answer. `is_final` closes the row: exactly one per row, maybe empty."""

    token_ids: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    tensors: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    is_final: bool = False
