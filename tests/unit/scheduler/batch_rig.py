"""A batch scheduler without its thread: the test makes every run and turns the clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from leptond.backend import BatchRow, BatchSession, EmittedChunk, SessionKind, SessionOptions
from leptond.backend.fake import FakeModel, FakeOptions
from leptond.scheduler import (
    BatchAnswer,
    BatchItem,
    BatchRequest,
    BatchSummary,
    ComputeBudget,
    SchedulerOptions,
)
from leptond.scheduler.batch_admission import BatchAdmission
from leptond.scheduler.batch_limits import BatchLimits
from leptond.scheduler.batch_worker import BatchWorker
from leptond.scheduler.estimate import PaceEstimate
from leptond.text import Tokenizer
from leptond.types import (
    GenerationRequest,
    GenerationSummary,
    SamplingParams,
    StopConditions,
    Task,
    TokenChunk,
)
from tests.unit.scheduler.rig import GREEDY, RecordedAnswer, SimulatedClock

EMBED = {"task": "embed"}
BATCH = FakeOptions(kind=SessionKind.BATCH, slots=4, context=64, mean_sentences=0)
Emit = Callable[[int, EmittedChunk], bool]

AnswerSink = RecordedAnswer[BatchAnswer, BatchSummary]
TextSink = RecordedAnswer[TokenChunk, GenerationSummary]


def batch_fake(**options: object) -> FakeOptions:
    return FakeOptions.from_mapping({**BATCH.to_mapping(), **options})


def token_ids(sink: TextSink) -> list[int]:
    return [token_id for chunk in sink.items for token_id in chunk.token_ids]


def text(sink: TextSink) -> str:
    return "".join(chunk.text for chunk in sink.items)


def answers(sink: AnswerSink) -> dict[int, list[EmittedChunk]]:
    """Chunks by item."""
    chunks: dict[int, list[EmittedChunk]] = {}
    for item in sink.items:
        chunks.setdefault(item.index, []).append(item.chunk)
    return chunks


class WatchedBatchSession:
    """Passes every call on, and keeps what the engine was asked for.

    Attributes:
        before_run: called with the rows of each run before the engine sees them.
        on_emit: called after each chunk was handed out.
        script: runs instead of the engine where it is set.
    """

    def __init__(self, session: BatchSession) -> None:
        self._session = session
        self.runs: list[list[BatchRow]] = []
        self.num_interrupts = 0
        self.before_run: Callable[[Sequence[BatchRow]], None] = lambda rows: None
        self.on_emit: Callable[[int], None] = lambda index: None
        self.script: Callable[[Sequence[BatchRow], Emit], None] | None = None

    def run(self, batch: Sequence[BatchRow], emit: Emit) -> None:
        self.runs.append(list(batch))
        self.before_run(batch)

        def watched(index: int, chunk: EmittedChunk) -> bool:
            goes_on = emit(index, chunk)
            self.on_emit(index)
            return goes_on

        (self.script or self._session.run)(batch, watched)

    def interrupt(self) -> None:
        self.num_interrupts += 1
        self._session.interrupt()

    def shutdown(self) -> None:
        self._session.shutdown()

    @property
    def lengths(self) -> list[list[int]]:
        """Tokens of each row of each run."""
        return [[len(row.token_ids) for row in rows] for rows in self.runs]


class BatchRig:
    """One model's admission and worker on the fake engine."""

    def __init__(
        self,
        fake: FakeOptions = BATCH,
        options: SchedulerOptions | None = None,
        *,
        tokenizer: Tokenizer | None = None,
        **declared: Any,
    ) -> None:
        self.clock = SimulatedClock()
        self.fake = fake
        self.model = FakeModel(fake, self.clock.sleep)
        self.num_flushes = 0
        session_options = SessionOptions(fake.slots, fake.context)
        session = self.model.open_session(session_options)
        assert isinstance(session, BatchSession)
        self.session = WatchedBatchSession(session)
        capabilities = replace(
            self.model.capabilities,
            tasks=frozenset({Task.GENERATE, Task.EMBED, Task.TRANSLATE}),
            **declared,
        )
        options = options or SchedulerOptions()
        self.limits = BatchLimits.resolve(
            "fake", capabilities, session_options, options, has_tokenizer=tokenizer is not None
        )
        self.pace = PaceEstimate()
        self.compute = ComputeBudget(2, clock=self.clock)
        self.admission = BatchAdmission(
            self.limits, options, tokenizer, clock=self.clock, pace=self.pace
        )
        self.worker = BatchWorker(
            self.session,
            self.admission,
            limits=self.limits,
            compute=self.compute,
            clock=self.clock,
            pace=self.pace,
            flush=self._flush,
        )
        self._serials = itertools.count()

    def _flush(self) -> None:
        self.num_flushes += 1

    def tokens(self, length: int) -> tuple[int, ...]:
        """So many tokens, each time others."""
        serial = next(self._serials)
        return tuple((serial * 31 + i) % 250 for i in range(length))

    def request(
        self,
        *lengths: int,
        deadline_in: float | None = None,
        priority: int = 0,
        tenant: str = "",
        **options: Any,
    ) -> BatchRequest:
        """A request with an item of each length; embeddings by default."""
        rows = [BatchRow(self.tokens(length), options=options or EMBED) for length in lengths]
        return BatchRequest(
            id=f"b{next(self._serials)}",
            items=tuple(BatchItem(row, max(1, len(row.token_ids))) for row in rows),
            deadline=None if deadline_in is None else self.clock.now + deadline_in,
            priority=priority,
            tenant=tenant,
        )

    def submit(self, request: BatchRequest) -> AnswerSink:
        sink: AnswerSink = RecordedAnswer(self.clock)
        self.admission.submit(request, sink)
        return sink

    def embed(self, *lengths: int, **kind: Any) -> AnswerSink:
        return self.submit(self.request(*lengths, **kind))

    def generate(
        self,
        prompt: int | Sequence[int] = 4,
        max_tokens: int = 4,
        *,
        deadline_in: float | None = None,
        sampling: SamplingParams = GREEDY,
        stop: StopConditions | None = None,
        num_top_logprobs: int | None = None,
        tenant: str = "",
    ) -> TextSink:
        request = GenerationRequest(
            id=f"g{next(self._serials)}",
            prompt_ids=self.tokens(prompt) if isinstance(prompt, int) else tuple(prompt),
            sampling=sampling,
            stop=stop or StopConditions(max_tokens),
            deadline=None if deadline_in is None else self.clock.now + deadline_in,
            num_top_logprobs=num_top_logprobs,
            tenant=tenant,
        )
        sink: TextSink = RecordedAnswer(self.clock)
        self.admission.submit_generation(request, sink)
        return sink

    def advance(self) -> bool:
        has_run = self.worker.advance(has_news=self.admission.begin_round())
        self.worker.check_integrity()
        return has_run

    def run(self, max_runs: int = 10_000) -> int:
        """Make runs until there is nothing to run; how many."""
        for count in range(max_runs):
            if not self.advance():
                return count
        raise AssertionError(f"still running after {max_runs} runs")
