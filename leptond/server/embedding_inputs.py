"""The inputs of an embedding: texts or token ids of one message, with prompt, cut and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from leptond.errors import InvalidRequest
from leptond.models import ServedModel
from leptond.server.convert import embeddings
from leptond.server.encoding import (
    Cut,
    EncodedTexts,
    check_count,
    encode_each,
    encode_texts,
    encoder_defaults,
    take_token_ids,
)
from leptond.streaming import BlockingPool
from leptond.types import Task
from leptond.v1 import embedding_pb2

__all__ = ["note_counts", "prepare_each", "prepare_texts"]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a message asks for: one of the two lists, and how its rows are made."""

    texts: Sequence[str]
    token_ids: Sequence[Sequence[int]]
    cut: Cut
    row_options: dict[str, str]
    prompt: str


async def prepare_texts(
    model: ServedModel, wire: Any, options: embedding_pb2.EmbedOptions, pool: BlockingPool
) -> EncodedTexts:
    """Make the rows of a message with `texts` or `token_ids`.

    Raises:
        InvalidRequest: both or none of the two, too many, or one of them is wrong.
        UnsupportedCapability: a pooling that no engine here has.
    """
    asked = _read(model, wire, options)
    if asked.token_ids:
        return await pool.run(take_token_ids, model, asked.token_ids, options=asked.row_options)
    return await encode_texts(
        model,
        asked.texts,
        pool,
        cut=asked.cut,
        options=asked.row_options,
        prompt=asked.prompt,
    )


async def prepare_each(
    model: ServedModel, wire: Any, options: embedding_pb2.EmbedOptions, pool: BlockingPool
) -> list[EncodedTexts | InvalidRequest]:
    """The same, of each input by itself: what is wrong with one is no matter of the others.

    Raises:
        InvalidRequest: both or none of the two lists, or too many.
    """
    asked = _read(model, wire, options)
    if not asked.token_ids:
        return await encode_each(
            model,
            asked.texts,
            pool,
            cut=asked.cut,
            options=asked.row_options,
            prompt=asked.prompt,
        )

    def take(index: int) -> EncodedTexts | InvalidRequest:
        ids, own = asked.token_ids[index], partial(_name_of, index)
        try:
            return take_token_ids(model, [ids], options=asked.row_options, field=own)
        except InvalidRequest as error:
            return error

    return await pool.run(lambda: [take(index) for index in range(len(asked.token_ids))])


def _name_of(index: int, _: int) -> str:
    return f"token_ids[{index}].ids"


def note_counts(
    batch: embedding_pb2.EmbeddingBatch, num_tokens: Sequence[int], num_truncated: Sequence[int]
) -> None:
    """Say how many tokens of each text were read, and cut if any were."""
    batch.num_tokens.extend(num_tokens)
    if any(num_truncated):
        batch.truncated_tokens.extend(num_truncated)


def _read(model: ServedModel, wire: Any, options: embedding_pb2.EmbedOptions) -> _Asked:
    defaults = encoder_defaults(model)
    if bool(wire.texts) == bool(wire.token_ids):
        raise InvalidRequest("exactly one of texts and token_ids is needed", field="texts")
    prompt = embeddings.prompt_of(options, defaults)
    truncation = options.truncation if options.HasField("truncation") else None
    if wire.token_ids:
        check_count(len(wire.token_ids), "token_ids")
        if options.prompt or options.prompt_name or truncation is not None:
            msg = "token_ids are taken as they are: neither prompts nor truncation apply"
            raise InvalidRequest(msg, field="token_ids")
    else:
        check_count(len(wire.texts), "texts")
    return _Asked(
        texts=list(wire.texts),
        token_ids=[one.ids for one in wire.token_ids],
        cut=Cut.of(model, truncation),
        row_options={"task": Task.EMBED.value, **embeddings.pooling_option(options)},
        prompt=prompt,
    )
