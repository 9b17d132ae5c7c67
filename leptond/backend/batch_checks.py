"""Checks of the rows of a whole call, for every engine that answers them; refusals name the field.

Pure functions, called on a session's own thread before anything runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from leptond.backend.rows import BatchRow
from leptond.errors import InvalidRequest, RequestTooLarge

__all__ = [
    "check_ids",
    "check_known_options",
    "check_outputs",
    "check_task",
    "read_ids",
    "shared_options",
]

Shapes = Mapping[str, tuple[int, ...]]


def check_task(task: object, tasks: Collection[str]) -> str:
    """Return the task, or refuse it by name."""
    if task not in tasks:
        raise InvalidRequest(
            f"this model does not {task}; it does {', '.join(sorted(tasks))}", field="options.task"
        )
    return str(task)


def check_known_options(row: BatchRow, *names: str) -> None:
    """Refuse options other than `task` and `names`.

    Raises:
        InvalidRequest: naming the first.
    """
    if unknown := sorted(set(row.options) - {"task", *names}):
        known = f"; known are {', '.join(sorted(names))}" if names else ""
        raise InvalidRequest(f"unknown option {unknown[0]!r}{known}", field=f"options.{unknown[0]}")


def shared_options(rows: Sequence[BatchRow], apart: Collection[str] = ()) -> None:
    """Refuse rows whose options differ in more than `apart`.

    Raises:
        InvalidRequest: naming the option.
    """
    first = rows[0].options
    for row in rows[1:]:
        for name in first.keys() | row.options.keys():
            if name not in apart and first.get(name) != row.options.get(name):
                raise InvalidRequest(
                    f"rows of one run share their options, and {name} differs",
                    field=f"options.{name}",
                )


def check_ids(token_ids: Sequence[int], vocab_size: int, max_tokens: int, field: str) -> None:
    """Refuse tokens that are not there, none at all, or too many.

    Raises:
        InvalidRequest: or `RequestTooLarge`.
    """
    if not len(token_ids):
        raise InvalidRequest("a row needs at least one token", field=field)
    if len(token_ids) > max_tokens:
        raise RequestTooLarge(f"{len(token_ids)} tokens; at most {max_tokens} fit", field=field)
    for token in (min(token_ids), max(token_ids)):
        if not 0 <= token < vocab_size:
            raise InvalidRequest(
                f"token {token} is not among the {vocab_size} of the vocabulary", field=field
            )


def read_ids(row: BatchRow, name: str) -> list[int]:
    """Return the token ids of one of the row's tensors; none when it has no such tensor.

    Raises:
        InvalidRequest: it is no list of whole numbers.
    """
    tensor = row.tensors.get(name)
    if tensor is None:
        return []
    if tensor.ndim != 1 or not np.issubdtype(tensor.dtype, np.integer):
        raise InvalidRequest(f"{name} must be int64 [n]", field=f"tensors.{name}")
    ids: list[int] = tensor.tolist()
    return ids


def check_outputs(row: BatchRow, shapes: Shapes) -> None:
    """Refuse named buffers that do not fit the float32 answers.

    Raises:
        InvalidRequest: naming the buffer.
    """
    for name, buffer in row.outputs.items():
        field = f"outputs.{name}"
        if name not in shapes:
            raise InvalidRequest(f"there is no output {name}", field=field)
        is_right = buffer.shape == shapes[name] and buffer.dtype == np.float32
        if not is_right or not buffer.flags.writeable:
            raise InvalidRequest(
                f"the buffer of output {name} must be writable float32 {list(shapes[name])}",
                field=field,
            )
