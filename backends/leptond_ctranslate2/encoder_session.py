"""Encoders: one call for all rows, then the model's own head in numpy.

`leptond.backend.encoder_rows` says how rows are asked and answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ctranslate2
import numpy as np
import numpy.typing as npt

from leptond.backend import BatchRow
from leptond.backend.answers import Answers
from leptond.backend.encoder_rows import CheckedRows, EncoderRows
from leptond.backend.heads import Head
from leptond.backend.whole_calls import WholeCallSession
from leptond_ctranslate2.description import EngineDescription
from leptond_ctranslate2.faults import engine_errors

__all__ = ["EncoderSession"]


class EncoderSession(WholeCallSession):
    """A `BatchSession` over a `ctranslate2.Encoder`."""

    def __init__(
        self,
        encoder: Any,
        head: Head,
        description: EngineDescription,
        *,
        max_rows: int,
        max_tokens: int,
    ) -> None:
        super().__init__(max_rows)
        self._encoder = encoder
        self._rows = EncoderRows(
            head,
            vocab_size=description.vocab_size,
            hidden_size=description.sizes.hidden_size,
            max_tokens=max_tokens,
            num_token_types=description.num_token_types,
        )

    def shutdown(self) -> None:
        """Let go of the engine; idempotent."""
        super().shutdown()
        self._encoder = None

    def _prepare(self, batch: Sequence[BatchRow]) -> Callable[[Answers], None]:
        checked = self._rows.check(batch)
        return lambda answers: self._answer(checked, answers)

    def _answer(self, rows: CheckedRows, answers: Answers) -> None:
        hidden = self._hidden(rows)
        lengths = [len(ids) for ids in rows.token_ids]
        self._rows.answer(answers, range(len(lengths)), hidden, lengths, rows.pooling)

    def _hidden(self, rows: CheckedRows) -> npt.NDArray[np.float32]:
        """Return the last hidden states, float32 `[rows, longest, hidden_size]`."""
        with engine_errors():
            output = self._encoder.forward_batch(
                [list(ids) for ids in rows.token_ids],
                # Zeros are what the engine takes by itself; without a table it takes no types.
                token_type_ids=rows.token_types if rows.has_types else None,
            )
            view = output.last_hidden_state.to_device(ctranslate2.Device.cpu)
            return np.array(view.to(ctranslate2.DataType.float32))
