"""`Classify`: labels of texts, or of pairs of texts, by a model's own classification head.

On the event loop; tokenising runs on a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leptond.backend import BatchRow
from leptond.checkpoint import EncoderDefaults
from leptond.errors import InvalidRequest, UnsupportedCapability
from leptond.models import ServedModel
from leptond.scheduler import BatchItem
from leptond.server.batching import BatchCalls, gather_tensors, stacked
from leptond.server.calls import Call
from leptond.server.convert import classifications, requests
from leptond.server.encoding import (
    Cut,
    EncodedTexts,
    Input,
    check_count,
    encode_texts,
    encoder_defaults,
    take_token_ids,
    top,
)
from leptond.server.zero_shot import ZeroShotClassifier
from leptond.streaming import BlockingPool
from leptond.telemetry import CLASSIFY
from leptond.types import Task
from leptond.v1 import classification_pb2

__all__ = ["ClassificationMethods", "classify_rows"]

_WHOLE_TEXTS = (
    classification_pb2.CLASSIFICATION_UNIT_UNSPECIFIED,
    classification_pb2.CLASSIFICATION_UNIT_TEXT,
)
_ROW_OPTIONS = {"task": Task.CLASSIFY.value}


class ClassificationMethods:
    """Classify, by its name in snake case."""

    def __init__(self, batches: BatchCalls) -> None:
        self._batches = batches
        self._zero_shot = ZeroShotClassifier(batches.models, batches)

    async def classify(
        self, request: classification_pb2.ClassifyRequest, call: Call
    ) -> classification_pb2.ClassifyResponse:
        """The labels of every input; one that is wrong fails the call, by its index."""
        if request.labels:
            return await self._zero_shot.classify(request, call)
        encoded = EncodedTexts((), (), ())

        async def prepare(model: ServedModel) -> Sequence[BatchItem]:
            nonlocal encoded
            _check(request, model)
            encoded = await _encode(request, model, self._batches.pool)
            return encoded.items

        async with self._batches.admitted(request, call, CLASSIFY, prepare) as inference:
            logits = stacked(await gather_tensors(inference, len(encoded.items)), "logits")
            defaults = encoder_defaults(inference.model)
            count = top(request, "top_k", len(defaults.labels))
            response = classification_pb2.ClassifyResponse(
                method=classification_pb2.CLASSIFICATION_METHOD_HEAD,
                multi_label=_is_multi_label(request, defaults),
                info=inference.info(call),
            )

            def fill() -> None:
                scores = classifications.scores_of(logits, _activation(request, defaults))
                for row, num_truncated in zip(scores, encoded.num_truncated, strict=True):
                    result = response.results.add(truncated_tokens=num_truncated)
                    for index in classifications.best_first(row, count):
                        result.labels.add(label=defaults.labels[index], score=row[index])

            await self._batches.pool.run(fill)
            return response


async def classify_rows(
    model: ServedModel, inputs: Sequence[Input], pool: BlockingPool, *, cut: Cut, field: Any
) -> EncodedTexts:
    """Make the rows of texts and pairs for a model's own head; see `encode_texts`."""
    return await encode_texts(model, inputs, pool, cut=cut, options=_ROW_OPTIONS, field=field)


def _check(request: classification_pb2.ClassifyRequest, model: ServedModel) -> None:
    model.require(Task.CLASSIFY)
    requests.check_determinism(request.options, model.name, model.capabilities)
    if request.HasField("multi_label") and encoder_defaults(model).problem_type == "regression":
        msg = f"multi_label: model {model.name} gives a number, no labels to choose from"
        raise InvalidRequest(msg, field="multi_label")
    if request.hypothesis_template:
        msg = "hypothesis_template goes with labels"
        raise InvalidRequest(msg, field="hypothesis_template")
    if request.unit not in _WHOLE_TEXTS:
        msg = f"unit: model {model.name} labels whole texts, no spans"
        raise UnsupportedCapability(msg, field="unit")
    check_count(len(request.inputs), "inputs")
    top(request, "top_k", 1)


async def _encode(
    request: classification_pb2.ClassifyRequest, model: ServedModel, pool: BlockingPool
) -> EncodedTexts:
    """Texts and token ids may be mixed: each kind is made ready by itself and put in its place."""
    texts: list[Input] = []
    text_places: list[int] = []
    id_places: list[int] = []
    for index, one in enumerate(request.inputs):
        match one.WhichOneof("input"):
            case "text":
                text_places.append(index)
                texts.append((one.text, one.text_pair) if one.HasField("text_pair") else one.text)
            case "token_ids":
                if one.HasField("text_pair"):
                    field = f"inputs[{index}].text_pair"
                    raise InvalidRequest(f"{field}: token_ids are a whole input", field=field)
                id_places.append(index)
            case _:
                raise InvalidRequest(f"inputs[{index}] holds nothing", field=f"inputs[{index}]")
    truncation = request.truncation if request.HasField("truncation") else None
    if truncation is not None and not texts:
        msg = "truncation: token_ids are taken as they are"
        raise InvalidRequest(msg, field="truncation")
    parts = []
    if texts:
        cut = Cut.of(model, truncation)
        parts.append(
            (
                text_places,
                await classify_rows(
                    model,
                    texts,
                    pool,
                    cut=cut,
                    field=lambda place: f"inputs[{text_places[place]}].text",
                ),
            )
        )
    if id_places:
        ids = [request.inputs[index].token_ids.ids for index in id_places]
        encoded = await pool.run(
            take_token_ids,
            model,
            ids,
            options=_ROW_OPTIONS,
            field=lambda place: f"inputs[{id_places[place]}].token_ids.ids",
        )
        parts.append((id_places, encoded))
    return _in_order(parts, len(request.inputs))


def _in_order(parts: Sequence[tuple[Sequence[int], EncodedTexts]], count: int) -> EncodedTexts:
    items = [BatchItem(BatchRow(), 1)] * count
    num_tokens, num_truncated = [0] * count, [0] * count
    for places, encoded in parts:
        for index, place in enumerate(places):
            items[place] = encoded.items[index]
            num_tokens[place] = encoded.num_tokens[index]
            num_truncated[place] = encoded.num_truncated[index]
    return EncodedTexts(tuple(items), tuple(num_tokens), tuple(num_truncated))


def _is_multi_label(request: classification_pb2.ClassifyRequest, defaults: EncoderDefaults) -> bool:
    own = defaults.problem_type == "multi_label"
    return requests.optional(request, "multi_label", default=own)


def _activation(request: classification_pb2.ClassifyRequest, defaults: EncoderDefaults) -> str:
    if request.raw_scores:
        return "identity"
    if request.HasField("multi_label"):
        return "sigmoid" if request.multi_label else "softmax"
    return defaults.activation
