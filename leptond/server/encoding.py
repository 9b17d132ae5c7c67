"""From the texts of a call to the rows of an encoder, off the event loop.

Shared by everything that asks encoders: embeddings, classification, reranking, and dialects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leptond.backend import BatchRow
from leptond.checkpoint import EncoderDefaults
from leptond.errors import InvalidRequest, RequestTooLarge, UnsupportedCapability
from leptond.models import ServedModel
from leptond.scheduler import BatchItem
from leptond.server.convert import requests
from leptond.streaming import BlockingPool
from leptond.v1 import common_pb2

__all__ = [
    "MAX_INPUTS",
    "Cut",
    "EncodedTexts",
    "Input",
    "check_count",
    "encode_each",
    "encode_texts",
    "encoder_defaults",
    "take_token_ids",
    "top",
]

MAX_INPUTS = 10_000
"""Inputs of one message."""

Input = str | tuple[str, str]
"""A text, or a pair of texts that the model reads together."""

Name = Callable[[int], str]
"""The name of an input, by its index, as its caller knows it."""

_SIDES = {common_pb2.TRUNCATION_SIDE_LEFT: "left", common_pb2.TRUNCATION_SIDE_RIGHT: "right"}


@dataclass(frozen=True, slots=True)
class Cut:
    """How long an input may be, and what happens to a longer one.

    Attributes:
        max_tokens: special tokens included.
        side: the end that a longer one loses; None refuses it.
        keeps_first: of a pair only the second is cut; else the longer one first.
    """

    max_tokens: int
    side: Any
    keeps_first: bool = False

    @classmethod
    def of(cls, model: ServedModel, wire: common_pb2.Truncation | None) -> Cut:
        """Read a caller's permission to cut; None is no permission.

        Raises:
            InvalidRequest: it keeps no token.
        """
        most = min(model.max_context_tokens, model.encoder.defaults.max_tokens)
        if wire is None:
            return cls(most, None)
        wanted = requests.optional(wire, "max_tokens", default=most)
        if wanted < 1:
            msg = "truncation.max_tokens is 0; at least 1 is kept"
            raise InvalidRequest(msg, field="truncation.max_tokens")
        if wire.side and wire.side not in _SIDES:
            msg = f"truncation.side is {wire.side}, which is none"
            raise InvalidRequest(msg, field="truncation.side")
        side = _SIDES.get(wire.side, model.encoder.defaults.truncation_side)
        return cls(min(wanted, most), side)


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """Inputs that are ready.

    Attributes:
        items: one per input, in their order.
        num_tokens, num_truncated: of each input: tokens to read, and tokens that were cut.
    """

    items: tuple[BatchItem, ...]
    num_tokens: tuple[int, ...]
    num_truncated: tuple[int, ...]


def check_count(count: int, field: str) -> None:
    """Refuse no inputs, and more than a message may have.

    Raises:
        InvalidRequest: names the field and the limit.
    """
    if count < 1:
        raise InvalidRequest(f"{field} is empty", field=field)
    if count > MAX_INPUTS:
        msg = f"{field} has {count} entries; at most {MAX_INPUTS} go into one message"
        raise RequestTooLarge(msg, field=field)


def top(wire: Any, field: str, most: int) -> int:
    """How many of the best are returned.

    Raises:
        InvalidRequest: it is set to 0.
    """
    count: int = requests.optional(wire, field, default=most)
    if count < 1:
        raise InvalidRequest(f"{field} is 0; at least 1 is returned", field=field)
    return min(count, most)


def encoder_defaults(model: ServedModel) -> EncoderDefaults:
    """What the model's own files say of its input and of its head.

    Raises:
        UnsupportedCapability: it is no encoder by itself.
    """
    defaults = model.encoder.defaults
    if not isinstance(defaults, EncoderDefaults):
        raise UnsupportedCapability(f"model {model.name} is no encoder", field="model")
    return defaults


async def encode_texts(
    model: ServedModel,
    inputs: Sequence[Input],
    pool: BlockingPool,
    *,
    cut: Cut,
    options: Mapping[str, Any],
    prompt: str = "",
    field: Name = "texts[{}]".format,
) -> EncodedTexts:
    """Tokenise texts, or pairs of texts, and make a row of each.

    Args:
        model: an encoder.
        inputs: at least one.
        pool: where the tokenizer runs.
        cut: what becomes of one that is too long.
        options: of every row, `task` among them.
        prompt: put in front of each text, and of the first of a pair.
        field: name of an input in errors, by its index.

    Raises:
        RequestTooLarge: one is too long and must not be cut.
        InvalidRequest: no room beside the special tokens.
    """
    way = _Way(cut, options, prompt)
    return await pool.run(_encode, model, inputs, way, field)


async def encode_each(
    model: ServedModel,
    inputs: Sequence[Input],
    pool: BlockingPool,
    *,
    cut: Cut,
    options: Mapping[str, Any],
    prompt: str = "",
    field: Name = "texts[{}]".format,
) -> list[EncodedTexts | InvalidRequest]:
    """The same, of each input by itself: its row, or what is wrong with it."""
    way = _Way(cut, options, prompt)

    def encode_all() -> list[EncodedTexts | InvalidRequest]:
        try:
            whole = _encode(model, inputs, way, field)
        except InvalidRequest:
            return [encode_one(index, one) for index, one in enumerate(inputs)]
        parts = zip(whole.items, whole.num_tokens, whole.num_truncated, strict=True)
        return [EncodedTexts((item,), (tokens,), (cut_off,)) for item, tokens, cut_off in parts]

    def encode_one(index: int, one: Input) -> EncodedTexts | InvalidRequest:
        try:
            return _encode(model, [one], way, lambda _: field(index))
        except InvalidRequest as error:
            return error

    return await pool.run(encode_all)


@dataclass(frozen=True, slots=True)
class _Way:
    """How inputs become rows; see `encode_texts`."""

    cut: Cut
    options: Mapping[str, Any]
    prompt: str


def _encode(model: ServedModel, inputs: Sequence[Input], way: _Way, field: Name) -> EncodedTexts:
    has_types = encoder_defaults(model).has_token_types
    try:
        encoded = model.encoder.encode(
            inputs,
            max_tokens=way.cut.max_tokens,
            truncate=way.cut.side,
            prompt=way.prompt,
            keeps_first=way.cut.keeps_first,
        )
    except InvalidRequest as error:
        raise _renamed(error, field) from error
    items = []
    for one in encoded:
        tensors = {}
        if has_types and any(one.token_type_ids):
            tensors["token_type_ids"] = np.array(one.token_type_ids, np.int64)
        row = BatchRow(token_ids=one.token_ids, tensors=tensors, options=way.options)
        items.append(BatchItem(row, len(one.token_ids)))
    return EncodedTexts(
        tuple(items),
        tuple(len(one.token_ids) for one in encoded),
        tuple(one.num_truncated for one in encoded),
    )


def _renamed(error: InvalidRequest, field: Name) -> InvalidRequest:
    """The same error by the name that the caller gave to the input."""
    named = error.field or ""
    if not named.startswith("texts["):
        return error
    mine = field(int(named.removeprefix("texts[").rstrip("]")))
    message = error.message.replace(named, mine, 1)
    return type(error)(message, field=mine, details=error.details)


def take_token_ids(
    model: ServedModel,
    token_ids: Sequence[Sequence[int]],
    *,
    options: Mapping[str, Any],
    field: Name = "token_ids[{}].ids".format,
) -> EncodedTexts:
    """Make a row of each list of token ids, taken exactly as they are.

    Raises:
        InvalidRequest: one is empty, too long, or has a token that the model lacks.
    """
    items = []
    for index, ids in enumerate(token_ids):
        checked = requests.prompt_ids(
            ids, model.capabilities.vocab_size, model.max_context_tokens, field(index)
        )
        items.append(BatchItem(BatchRow(token_ids=checked, options=options), len(checked)))
    counts = tuple(len(item.row.token_ids) for item in items)
    return EncodedTexts(tuple(items), counts, (0,) * len(items))
