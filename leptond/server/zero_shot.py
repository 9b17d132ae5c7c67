"""Classification with labels of the caller's own, by how likely a generative model finds each.

One label: the model is asked which statement is true of the text, and each statement is scored as
its answer. What counts is by how much the text makes a statement likelier than it is without any
text, log P(statement | text) - log P(statement | no text): labels that are rare words or long are
not held back by that (Holtzman et al. 2021, "Surface Form Competition", domain-conditional PMI).

Several labels: the model is asked of each statement whether it is true; its probability is that of
"yes" against "no".

On the event loop; templates and tokenisers run on threads.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from leptond.errors import InvalidRequest, LeptondError, RequestTooLarge, UnsupportedCapability
from leptond.models import ModelRegistry, ServedModel
from leptond.server.batching import BatchCalls
from leptond.server.calls import Call
from leptond.server.convert import classifications, requests, responses
from leptond.server.encoding import MAX_INPUTS, check_count, top
from leptond.server.leases import leased
from leptond.server.likelihood import Scorer, Target, encode_target
from leptond.server.prompts import encode_text
from leptond.telemetry import CLASSIFY
from leptond.text import ChatMessage
from leptond.types import Task
from leptond.v1 import classification_pb2

__all__ = ["ZeroShotClassifier"]

_PLACE = "{}"
_CHOICE = "Which of these is true of the text above?"
_ONE = "Answer with one of them."
_QUESTION = "Is this true of the text above?"
_YES_OR_NO = "Answer yes or no."
_NO_TEXT = "..."
_YES, _NO = "yes", "no"


class ZeroShotClassifier:
    """Answers `Classify` requests that bring labels."""

    def __init__(self, models: ModelRegistry, batches: BatchCalls) -> None:
        self._models = models
        self._batches = batches

    async def classify(
        self, request: classification_pb2.ClassifyRequest, call: Call
    ) -> classification_pb2.ClassifyResponse:
        """Scores of the caller's labels for every text.

        Raises:
            UnsupportedCapability: the model generates no text, or an option that only heads have.
            InvalidRequest: labels, template or inputs that make no question.
        """
        label = await requests.begin(request, call, self._batches.pool)
        async with leased(self._models, request.model, request.model_version, call) as model:
            times = responses.CallTimes(call.started, time.monotonic())
            _check_model(model)
            statements = _statements(request)
            texts = _texts(request)
            count = top(request, "top_k", len(statements))
            requests.check_determinism(request.options, model.name, model.capabilities)
            model.scheduler.require_room()
            priority = request.options.priority
            scorer = Scorer(model, self._batches, call, CLASSIFY, times, priority=priority)
            asking = _Asking(scorer, statements)
            scores = await asking.each(texts) if request.multi_label else await asking.best(texts)
            if not request.raw_scores:
                kind = "sigmoid" if request.multi_label else "softmax"
                scores = classifications.scores_of(scores, kind)
            now = time.monotonic()
            response = classification_pb2.ClassifyResponse(
                method=classification_pb2.CLASSIFICATION_METHOD_LIKELIHOOD,
                multi_label=request.multi_label,
                info=responses.response_info(
                    label=label,
                    call_id=call.id,
                    model=model.name,
                    version=model.variant.version,
                    prompt_tokens=scorer.usage.prompt_tokens,
                    timing=responses.timing(times, scorer.phases(now), now),
                ),
            )
            for row in scores:
                result = response.results.add()
                for index in classifications.best_first(row, count):
                    result.labels.add(label=request.labels[index], score=row[index])
            return response


@dataclass(frozen=True, slots=True)
class _Context:
    """One question as the model reads it, and the caller's name of what it is about."""

    token_ids: tuple[int, ...]
    field: str


@dataclass(frozen=True, slots=True)
class _Asking:
    """Puts the questions of one call."""

    scorer: Scorer
    statements: Sequence[str]

    async def best(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """By how much each text makes each statement likelier, float64 `[texts, statements]`."""
        answers = [await self._answer(statement) for statement in self.statements]
        listed = "\n".join(f"- {statement}" for statement in self.statements)
        fields = [*_fields(texts), "labels"]
        contexts = [
            await self._context(f"{text}\n\n{_CHOICE}\n{listed}\n{_ONE}", field)
            for field, text in zip(fields, [*texts, _NO_TEXT], strict=True)
        ]
        sums = await self._sums(contexts, answers)
        gains: npt.NDArray[np.float64] = sums[:-1] - sums[-1]
        return gains

    async def each(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Log-odds of "yes" for each statement, float64 `[texts, statements]`."""
        answers = [await self._answer(word) for word in (_YES, _NO)]
        contexts = [
            await self._context(f"{text}\n\n{_QUESTION} {statement}\n{_YES_OR_NO}", field)
            for field, text in zip(_fields(texts), texts, strict=True)
            for statement in self.statements
        ]
        sums = await self._sums(contexts, answers)
        odds: npt.NDArray[np.float64] = sums[:, 0] - sums[:, 1]
        return odds.reshape(len(texts), len(self.statements))

    async def _sums(
        self, contexts: Sequence[_Context], answers: Sequence[tuple[int, ...]]
    ) -> npt.NDArray[np.float64]:
        """Log-probability of each answer behind each context, `[contexts, answers]`."""
        targets = [
            Target(context.token_ids, answer, context.field)
            for context in contexts
            for answer in answers
        ]
        found = await self.scorer.score(targets)
        sums = [sum(entry.logprob for entry in entries) for entries in found]
        return np.array(sums, np.float64).reshape(len(contexts), len(answers))

    async def _answer(self, text: str) -> tuple[int, ...]:
        # Behind a chat template's own line an answer begins without a space; else with one.
        model = self.scorer.model
        begins = model.template is not None or model.text.encoder is not None
        answer = text if begins else f" {text}"
        return await encode_target(answer, model, self.scorer.batches, "labels")

    async def _context(self, question: str, field: str) -> _Context:
        model, pool = self.scorer.model, self.scorer.batches.pool
        template = model.template
        try:
            if template is None:
                ids = await encode_text(
                    question, model, pool, parse_special=False, add_special=None, field=field
                )
                return _Context(tuple(ids), field)
            model.tokenizer.check_text_size(question, model.max_context_tokens, field)

            def render() -> tuple[int, ...]:
                prompt = template.render([ChatMessage("user", question)])
                return tuple(model.tokenizer.encode_rendered(prompt))

            return _Context(await pool.run(render), field)
        except LeptondError as error:
            raise type(error)(error.message, field=field) from error


def _fields(texts: Sequence[str]) -> list[str]:
    return [f"inputs[{index}]" for index in range(len(texts))]


def _check_model(model: ServedModel) -> None:
    if model.capabilities.tasks.isdisjoint({Task.GENERATE, Task.SCORE}):
        msg = f"labels: model {model.name} has labels of its own, or none; a chat model takes any"
        raise UnsupportedCapability(msg, field="labels")


def _statements(request: classification_pb2.ClassifyRequest) -> list[str]:
    template = request.hypothesis_template or _PLACE
    if template.count(_PLACE) != 1:
        msg = "hypothesis_template has to have one {} for the label"
        raise InvalidRequest(msg, field="hypothesis_template")
    labels = list(request.labels)
    for index, label in enumerate(labels):
        if not label.strip():
            raise InvalidRequest(f"labels[{index}] is empty", field=f"labels[{index}]")
    if len(set(labels)) < len(labels):
        raise InvalidRequest("labels has a label twice", field="labels")
    return [template.replace(_PLACE, label) for label in labels]


def _texts(request: classification_pb2.ClassifyRequest) -> list[str]:
    if request.HasField("truncation"):
        msg = "truncation is not supported together with labels"
        raise UnsupportedCapability(msg, field="truncation")
    if request.unit == classification_pb2.CLASSIFICATION_UNIT_SPAN:
        raise UnsupportedCapability("unit: labels are of whole texts", field="unit")
    check_count(len(request.inputs), "inputs")
    if len(request.inputs) * len(request.labels) > MAX_INPUTS:
        msg = f"inputs times labels are more than {MAX_INPUTS}"
        raise RequestTooLarge(msg, field="labels")
    texts = []
    for index, one in enumerate(request.inputs):
        field = f"inputs[{index}]"
        if one.WhichOneof("input") != "text" or one.HasField("text_pair") or not one.text:
            msg = f"{field}: with labels an input is a single text"
            raise InvalidRequest(msg, field=field)
        texts.append(one.text)
    return texts
