"""How fast the variants of an encoder are on this machine, and how well they agree.

Used by `leptond import`, on its thread, after the model is in the store: one variant is in memory
at a time. Takes about a second for each; a large model is run once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from leptond.backend import (
    BatchRow,
    BatchSession,
    EmittedChunk,
    Model,
    ModelSource,
    Progress,
    SessionOptions,
)
from leptond.errors import InvariantViolation, LeptondError
from leptond.models.incoming import FindBackend
from leptond.models.sample_texts import SAMPLE_TEXTS
from leptond.models.store import StoredModel, StoredVariant
from leptond.text import EncoderTokenizer
from leptond.types import Task

__all__ = ["Measurement", "advise", "measure_encoders"]

_NUM_ROWS = 16  # of a call: enough for either engine to be at its best on a processor
_ENOUGH_S = 1.0
_MAX_ROUNDS = 5
_GOOD_COSINE = 0.99  # below it a search finds other texts
_OUTPUTS = {Task.EMBED: "embedding", Task.CLASSIFY: "logits"}

Answers = list[npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One variant on `SAMPLE_TEXTS`.

    Attributes:
        name: `model:variant`.
        texts_per_s: of the best round.
        cosine: mean cosine of its embeddings and those of the variant `reference`; None where
            there is nothing to compare.
        problem: why there is no measurement; "" when there is one.
    """

    name: str
    backend: str
    texts_per_s: float = 0.0
    cosine: float | None = None
    reference: str = ""
    problem: str = ""

    def __str__(self) -> str:
        if self.problem:
            return f"not measured {self.name} ({self.backend}): {self.problem}"
        said = f"measured {self.name} ({self.backend}): {self.texts_per_s:.0f} texts/s"
        if self.cosine is None:
            return said
        return f"{said}, mean cosine {self.cosine:.4f} to {self.reference}"


def measure_encoders(
    stored: StoredModel, find_backend: FindBackend, progress: Progress
) -> list[Measurement]:
    """Run every sound variant of an encoder; [] when the model is none.

    What cannot be loaded here is reported as a `problem`: it may be meant for another machine.
    """
    results: list[Measurement] = []
    answers: dict[str, Answers] = {}
    variants = [one for one in stored.variants.values() if _task(one) and not one.fault]
    # The one that the others are compared with comes first: float32, of the model's own engine.
    variants.sort(key=lambda one: (one.precision != "float32", len(one.variant), one.variant))
    for index, variant in enumerate(variants):
        progress(f"measure {variant.variant}", index / len(variants))
        try:
            texts_per_s, answers[variant.name] = _measure(variant, find_backend)
        except LeptondError as error:
            results.append(Measurement(variant.name, variant.backend, problem=error.message))
            continue
        results.append(Measurement(variant.name, variant.backend, texts_per_s))
    reference = variants[0] if variants else None
    if reference is None or reference.precision != "float32" or reference.name not in answers:
        return results
    if _task(reference) is not Task.EMBED:
        return results
    return [
        replace(
            one,
            cosine=_mean_cosine(answers[one.name], answers[reference.name]),
            reference=reference.name,
        )
        if one.name in answers and one.name != reference.name
        else one
        for one in results
    ]


def advise(measurements: Sequence[Measurement], default: str) -> str:
    """Which variant to serve, as a sentence; "" when there is no choice.

    Args:
        measurements: of the variants of one model, from one run.
        default: `model:variant` that callers get who name the model alone.
    """
    usable = {one.name: one for one in measurements if not one.problem}
    if len(usable) < 2 or default not in usable:  # noqa: PLR2004 - one alone is no choice
        return ""
    fastest = max(usable.values(), key=lambda one: one.texts_per_s)
    if fastest.name == default:
        return f"{default}, the default, is the fastest on this processor"
    ratio = fastest.texts_per_s / usable[default].texts_per_s
    said = f"{fastest.name} is {ratio:.2f} times as fast as {default}, the default"
    if fastest.cosine is not None and fastest.cosine < _GOOD_COSINE:
        return f"{said}, but its vectors differ: compare the results before you serve it"
    return f"{said}: ask for it by its full name"


def _task(variant: StoredVariant) -> Task | None:
    """What an encoder's session is asked for; None of other models."""
    return next((task for task in _OUTPUTS if task in variant.tasks), None)


def _measure(variant: StoredVariant, find_backend: FindBackend) -> tuple[float, Answers]:
    """Texts per second, and the answers in the order of the texts."""
    source = ModelSource(variant.directory, variant.precision)
    model = find_backend(variant.backend).load(source, lambda stage, fraction: None)
    with closing(model):
        capabilities = model.capabilities
        num_rows = min(_NUM_ROWS, capabilities.max_batch_rows)
        session = _open(model, SessionOptions(num_rows, capabilities.max_context_tokens))
        try:
            tokenizer = EncoderTokenizer.load(variant.assets)
            max_tokens = min(tokenizer.defaults.max_tokens, capabilities.max_context_tokens)
            texts = tokenizer.encode(SAMPLE_TEXTS, max_tokens=max_tokens, truncate="right")
            task = _task(variant) or Task.EMBED
            rows = [BatchRow(text.token_ids, options={"task": str(task)}) for text in texts]
            answers = _run(session, rows, num_rows, _OUTPUTS[task])  # warms up, too
            best_s = _best_time_s(session, rows, num_rows, _OUTPUTS[task])
        finally:
            session.shutdown()
    return len(rows) / best_s, answers


def _open(model: Model, options: SessionOptions) -> BatchSession:
    session = model.open_session(options)
    if not isinstance(session, BatchSession):
        raise InvariantViolation("an encoder that does not answer whole calls; this is a bug")
    return session


def _best_time_s(
    session: BatchSession, rows: Sequence[BatchRow], num_rows: int, output: str
) -> float:
    """The shortest of a few rounds: what else the machine does only makes one longer."""
    rounds: list[float] = []
    while len(rounds) < _MAX_ROUNDS and sum(rounds) < _ENOUGH_S:
        begin = time.perf_counter()
        _run(session, rows, num_rows, output)
        rounds.append(time.perf_counter() - begin)
    return min(rounds)


def _run(session: BatchSession, rows: Sequence[BatchRow], num_rows: int, output: str) -> Answers:
    """Answer all rows, those of near-equal length together, as the daemon does."""
    answers: dict[int, npt.NDArray[np.float32]] = {}
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].token_ids))
    for start in range(0, len(order), num_rows):
        part = order[start : start + num_rows]

        def emit(place: int, chunk: EmittedChunk, part: list[int] = part) -> bool:
            answers[part[place]] = np.array(chunk.tensors[output], np.float32)
            return True

        session.run([rows[index] for index in part], emit)
    return [answers[index] for index in range(len(rows))]


def _mean_cosine(some: Answers, others: Answers) -> float:
    cosines = [
        float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
        for one, other in zip(some, others, strict=True)
    ]
    return sum(cosines) / len(cosines)
