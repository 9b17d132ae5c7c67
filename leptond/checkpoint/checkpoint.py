"""What every checkpoint reader offers: architecture facts, tensors by canonical name, text facts.

The canonical names are in `leptond.checkpoint.tensors`. Called by importers, on the thread of the
import.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from leptond.checkpoint.architecture import (
    Architecture,
    DecoderArchitecture,
    EncoderArchitecture,
    Seq2SeqArchitecture,
)
from leptond.checkpoint.text_assets import TextAssets
from leptond.types import Task

__all__ = [
    "Checkpoint",
    "DecoderCheckpoint",
    "EncoderCheckpoint",
    "HeadParts",
    "Seq2SeqCheckpoint",
]


class Checkpoint(ABC):
    """One opened checkpoint. All that can be refused was refused when it was opened."""

    path: Path
    architecture: Architecture
    text: TextAssets

    @abstractmethod
    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """Return the tensor of canonical `name`, read and dequantised now.

        Raises:
            KeyError: the architecture has no tensor of that name.
        """


class DecoderCheckpoint(Checkpoint):
    """A checkpoint of a language model; `text.generation` is there."""

    architecture: DecoderArchitecture


class HeadParts(NamedTuple):
    """What follows an encoder's last hidden state: the arguments of `leptond.backend.heads.Head`.

    Attributes:
        task: EMBED or CLASSIFY.
        operations: in order, as `head.json` holds them:
            `{"op": "pool", "kind": "mean" | "cls" | "last"}` comes first and once;
            `{"op": "dense", "weight": array, "bias": array or None, "activation": name}` is
            `activation(x @ weight.T + bias)`, the activation being `identity`, `tanh`, `relu`,
            `gelu` or `gelu_tanh`.
        arrays: float32, by the names that the operations use.
    """

    task: Task
    operations: Sequence[Mapping[str, Any]]
    arrays: Mapping[str, npt.NDArray[np.float32]]


class EncoderCheckpoint(Checkpoint):
    """A checkpoint of an encoder; `text.encoder` is `EncoderDefaults`."""

    architecture: EncoderArchitecture

    @abstractmethod
    def head(self) -> HeadParts:
        """Return the model's own pooling and head; its arrays are read now."""


class Seq2SeqCheckpoint(Checkpoint):
    """A checkpoint with an encoder and a decoder; `text.encoder` is `Seq2SeqDefaults`."""

    architecture: Seq2SeqArchitecture
