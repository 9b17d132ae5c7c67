"""Random workloads for a model of whole calls, under a simulated clock, watched at every run."""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from leptond.backend import BatchRow, EmittedChunk, SessionKind
from leptond.backend.fake import EMBEDDING_DIMENSIONS, FakeLanguage, FakeOptions, expected_tokens
from leptond.errors import (
    BackendFault,
    DeadlineExpired,
    InvalidRequest,
    QueueFull,
    RequestTooLarge,
)
from leptond.scheduler import BatchItem, BatchRequest, SchedulerOptions
from leptond.scheduler.batch_plan import length_bucket, prompt_bucket
from leptond.types import FinishReason, GenerationRequest, Phase, PhaseName, StopConditions
from tests.unit.scheduler.batch_rig import AnswerSink, BatchRig, TextSink, answers
from tests.unit.scheduler.rig import GREEDY, RecordedAnswer

CONTEXT = 48
POISON = 255
UNKNOWN = 1 << 20
LANGUAGE = FakeLanguage(seed=0, mean_sentences=0)
OPTIONS = (
    {"task": "embed"},
    {"task": "embed", "pooling": "cls"},
    {"task": "translate", "max_tokens": 3},
    {"task": "translate", "max_tokens": 9},
)


def truth(token_ids: Sequence[int], max_tokens: int) -> list[int]:
    return expected_tokens(token_ids, max_tokens, FakeOptions(mean_sentences=0))


@dataclass(frozen=True)
class Arrival:
    """One request and what its caller does; times in seconds. No `lengths`: it generates."""

    at: float
    lengths: tuple[int, ...]
    kind: int
    bad: int
    prompt_tokens: int
    max_tokens: int
    priority: int
    tenant: str
    deadline_in: float | None
    cancel_after: float | None
    slow_from: float | None
    slow_for: float


@dataclass(frozen=True)
class Workload:
    fake: FakeOptions
    options: SchedulerOptions
    arrivals: tuple[Arrival, ...]


def _maybe(values: st.SearchStrategy[float]) -> st.SearchStrategy[float | None]:
    return st.one_of(st.none(), st.none(), st.none(), values)


_tenths = st.integers(0, 60).map(lambda tenths: tenths / 10)

_arrivals = st.builds(
    Arrival,
    at=st.integers(0, 20).map(lambda tenths: tenths / 10),
    lengths=st.lists(st.integers(1, CONTEXT + 1), max_size=7).map(tuple),
    kind=st.integers(0, len(OPTIONS) - 1),
    bad=st.sampled_from((0, 0, 0, 0, POISON, UNKNOWN)),
    prompt_tokens=st.integers(1, CONTEXT),
    max_tokens=st.integers(1, 12),
    priority=st.sampled_from((0, 0, 0, -3, 1, 1 << 30)),
    tenant=st.sampled_from("aab"),
    deadline_in=_maybe(_tenths),
    cancel_after=_maybe(_tenths),
    slow_from=_maybe(_tenths),
    slow_for=_tenths,
)


@st.composite
def batch_workloads(draw: st.DrawFn) -> Workload:
    return Workload(
        FakeOptions(
            kind=SessionKind.BATCH,
            slots=draw(st.integers(1, 6)),
            context=CONTEXT,
            mean_sentences=0,
            tokens_per_s=20,
            prefill_tokens_per_s=draw(st.sampled_from((0, 200))),
            poison_token=POISON,
            fault_at=draw(st.sampled_from((0, 0, 1, 3))),
        ),
        SchedulerOptions(
            max_queued=draw(st.integers(0, 12)),
            batch_token_budget=draw(st.integers(1, 150)),
            patience_s=draw(st.sampled_from((0.0, 1.0, 60.0))),
            priority_step_s=draw(st.sampled_from((0.0, 0.5))),
            max_priority=4,
        ),
        tuple(draw(st.lists(_arrivals, min_size=1, max_size=10))),
    )


@dataclass
class Caller:
    """One arrival on its way, and what comes of it."""

    arrival: Arrival
    request: BatchRequest | GenerationRequest
    sink: RecordedAnswer[Any, Any]
    is_admitted: bool = False


@dataclass
class BatchSimulation:
    """Runs a workload to its end and checks each run on the way."""

    workload: Workload
    rig: BatchRig = field(init=False)
    callers: list[Caller] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rig = BatchRig(self.workload.fake, self.workload.options)
        self.rig.session.before_run = self._check_run
        self.rig.session.on_emit = lambda index: self._let_time_act()
        self._serials = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def run(self) -> None:
        for arrival in self.workload.arrivals:
            at = self.rig.clock.now + arrival.at
            self._at(at, functools.partial(self._arrive, arrival))
        runs_left = 5_000  # every run answers or fails a row: more than enough
        while True:
            self._let_time_act()
            head = next(iter(self.rig.admission.candidates(1)), None)
            num_pending = 0 if head is None else len(head.pending)
            if self.rig.advance():
                runs_left -= 1
                assert runs_left, "it never ends"
                # Nothing starves: whoever is first in line is in the next run.
                assert head is None or head.is_over or len(head.pending) < num_pending
            elif self._events:
                until = min(self._events[0][0], self.rig.worker.next_deadline)
                self.rig.clock.now = max(self.rig.clock.now, until)
            else:
                break

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._serials), action))

    def _let_time_act(self) -> None:
        """What happens by now: between runs, and in the middle of one."""
        while self._events and self._events[0][0] <= self.rig.clock.now:
            heapq.heappop(self._events)[2]()

    def _arrive(self, arrival: Arrival) -> None:
        caller = self._caller(arrival)
        self.callers.append(caller)
        request, sink = caller.request, caller.sink
        inside = self.rig.admission.num_waiting + self.rig.admission.num_running
        most = self.rig.limits.max_running + self.workload.options.max_queued
        try:
            if isinstance(request, BatchRequest):
                self.rig.admission.submit(request, sink)
            else:
                self.rig.admission.submit_generation(request, sink)
        except (QueueFull, RequestTooLarge, DeadlineExpired) as error:
            sink.fail(error)
            if inside < most:
                assert not isinstance(sink.error, QueueFull)
            return
        assert inside < most
        caller.is_admitted = True
        now = self.rig.clock.now
        if arrival.cancel_after is not None:
            self._at(now + arrival.cancel_after, sink.cancel)
        if arrival.slow_from is not None:
            slow = functools.partial(_slow_down, sink)
            self._at(now + arrival.slow_from, slow)
            self._at(now + arrival.slow_from + arrival.slow_for, functools.partial(_speed_up, sink))

    def _caller(self, arrival: Arrival) -> Caller:
        serial = len(self.callers)
        deadline = None
        if arrival.deadline_in is not None:
            deadline = self.rig.clock.now + arrival.deadline_in
        if not arrival.lengths:
            generation = GenerationRequest(
                id=f"g{serial}",
                prompt_ids=self.rig.tokens(arrival.prompt_tokens),
                sampling=GREEDY,
                stop=StopConditions(arrival.max_tokens),
                deadline=deadline,
                priority=arrival.priority,
                tenant=arrival.tenant,
            )
            return Caller(arrival, generation, RecordedAnswer(self.rig.clock))
        rows = [self.rig.tokens(length) for length in arrival.lengths]
        if arrival.bad:
            rows[-1] = (arrival.bad, *rows[-1][1:])
        items = [BatchItem(BatchRow(row, options=OPTIONS[arrival.kind]), len(row)) for row in rows]
        request = BatchRequest(
            f"b{serial}", tuple(items), deadline, arrival.priority, arrival.tenant
        )
        return Caller(arrival, request, RecordedAnswer(self.rig.clock))

    # ------------------------------------------------------------------ what each run must keep
    def _check_run(self, rows: Sequence[BatchRow]) -> None:
        assert 1 <= len(rows) <= self.workload.fake.slots
        lengths = [len(row.token_ids) for row in rows]
        budget = self.workload.options.batch_token_budget
        assert len(rows) == 1 or len(rows) * max(lengths) <= budget
        assert all(row.options == rows[0].options for row in rows)
        bucket = prompt_bucket if rows[0].options["task"] == "generate" else length_bucket
        assert len({bucket(length) for length in lengths}) == 1
        in_run = {id(row) for row in rows}
        for caller in self.callers:
            if isinstance(caller.request, BatchRequest) and any(
                id(item.row) in in_run for item in caller.request.items
            ):
                assert not caller.sink.is_ended
                assert not caller.sink.is_cancelled

    # ------------------------------------------------------------------ what is true in the end
    def check_end(self) -> None:
        self.rig.worker.check_integrity()
        assert self.rig.admission.num_running == self.rig.admission.num_waiting == 0
        for caller in self.callers:
            sink = caller.sink
            assert sink.is_ended, caller
            deadline = caller.request.deadline
            assert deadline is None or all(time < deadline for time in sink.times)
            assert deadline is not None or not isinstance(sink.error, DeadlineExpired)
            if isinstance(caller.request, BatchRequest):
                self._check_items(caller, caller.request, sink)
            else:
                self._check_text(caller, caller.request, sink)

    def _check_items(self, caller: Caller, request: BatchRequest, sink: AnswerSink) -> None:
        found = answers(sink)
        for index, chunks in found.items():
            self._check_answer(request.items[index].row, chunks)
        is_bad = bool(caller.arrival.bad)
        if isinstance(sink.error, BackendFault | InvalidRequest) and caller.is_admitted:
            self._check_failure(request, sink, is_bad=is_bad)
        if sink.final is not None and not sink.is_cancelled:
            assert not is_bad
            assert found.keys() == set(range(len(request.items)))
            assert all(chunks[-1].is_final for chunks in found.values())
            usage = sink.final.usage
            assert usage.prompt_tokens == sum(len(item.row.token_ids) for item in request.items)
            assert usage.completion_tokens == sum(
                len(chunk.token_ids) for chunks in found.values() for chunk in chunks
            )
            _check_phases(sink.final.phases)

    def _check_failure(self, request: BatchRequest, sink: AnswerSink, *, is_bad: bool) -> None:
        """Only who brings a fault about fails, and names the item; `fault_at` is of one call."""
        index = int(sink.failure.details["index"])
        if is_bad:
            assert index == len(request.items) - 1 or self.workload.fake.fault_at
        else:
            assert self.workload.fake.fault_at

    def _check_answer(self, row: BatchRow, chunks: Sequence[EmittedChunk]) -> None:
        final = [chunk for chunk in chunks if chunk.is_final]
        assert len(final) <= 1
        if row.options["task"] == "embed":
            (chunk,) = final
            expected = LANGUAGE.embed(row.token_ids, EMBEDDING_DIMENSIONS)
            assert np.array_equal(chunk.tensors["embedding"], expected)
        else:
            tokens = [token for chunk in chunks for token in chunk.token_ids]
            expected_ids = truth(row.token_ids, row.options["max_tokens"])
            assert tokens == expected_ids[: len(tokens)]
            assert not final or tokens == expected_ids

    def _check_text(self, caller: Caller, request: GenerationRequest, sink: TextSink) -> None:
        tokens = [token for chunk in sink.items for token in chunk.token_ids]
        max_tokens = min(request.stop.max_tokens, CONTEXT - len(request.prompt_ids))
        expected = truth(request.prompt_ids, max_tokens)
        assert tokens == expected[: len(tokens)]
        if isinstance(sink.error, BackendFault):
            assert self.workload.fake.fault_at
        if sink.final is None:
            return
        assert sink.final.usage.completion_tokens == len(tokens)
        _check_phases(sink.final.phases)
        if sink.final.finish_reason is FinishReason.LENGTH:
            assert tokens == expected
        else:
            assert sink.final.finish_reason is FinishReason.CANCELLED
            assert sink.is_cancelled


def _check_phases(phases: Sequence[Phase]) -> None:
    order = [PhaseName.QUEUE, PhaseName.PREFILL, PhaseName.DECODE]
    assert [phase.name for phase in phases] == order[: len(phases)]
    for before, after in itertools.pairwise(phases):
        assert before.start <= before.end == after.start <= after.end


def _slow_down(sink: RecordedAnswer[Any, Any]) -> None:
    sink.has_room = False


def _speed_up(sink: RecordedAnswer[Any, Any]) -> None:
    sink.has_room = True
    sink.wake()
