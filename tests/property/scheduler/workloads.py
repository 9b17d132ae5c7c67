"""Random workloads for one model, and their run under a simulated clock, watched at every step."""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st

from leptond.backend.fake import FakeLanguage, FakeOptions
from leptond.errors import DeadlineExpired, QueueFull, RequestTooLarge
from leptond.scheduler import SchedulerOptions
from leptond.types import FinishReason, GenerationRequest
from tests.unit.scheduler.rig import RecordingSink, Rig

CONTEXT = 64
LANGUAGE = FakeLanguage(seed=0, mean_sentences=0)


@dataclass(frozen=True)
class Arrival:
    """One request and what its caller does; times in seconds."""

    at: float
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


_tenths = st.integers(0, 100).map(lambda tenths: tenths / 10)

_arrivals = st.builds(
    Arrival,
    at=st.integers(0, 40).map(lambda tenths: tenths / 10),
    prompt_tokens=st.integers(1, CONTEXT + 1),
    max_tokens=st.integers(1, 16),
    priority=st.sampled_from((0, 0, 0, -3, 1, 5, 1 << 30)),
    tenant=st.sampled_from("aab"),
    deadline_in=_maybe(_tenths),
    cancel_after=_maybe(_tenths),
    slow_from=_maybe(_tenths),
    slow_for=_tenths,
)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    slots = draw(st.integers(1, 5))
    step_token_budget = draw(st.integers(slots, 48))
    return Workload(
        FakeOptions(
            slots=slots,
            context=CONTEXT,
            mean_sentences=0,
            tokens_per_s=20,
            prefill_tokens_per_s=draw(st.sampled_from((0, 200))),
        ),
        SchedulerOptions(
            max_queued=draw(st.integers(0, 12)),
            step_token_budget=step_token_budget,
            prefill_chunk_tokens=draw(st.integers(1, 32)),
            ride_along_tokens=draw(st.integers(1, 16)),
            max_kv_tokens=draw(st.sampled_from((0, 0, 24, 70, 120))),
            patience_s=draw(st.sampled_from((0.0, 1.0, 60.0))),
            priority_step_s=draw(st.sampled_from((0.0, 0.5))),
            max_priority=4,
        ),
        tuple(draw(st.lists(_arrivals, min_size=1, max_size=10))),
    )


@dataclass
class Caller:
    """One arrival on its way."""

    arrival: Arrival
    request: GenerationRequest
    sink: RecordingSink
    is_admitted: bool = False
    arrived_at: float = 0.0
    arrived_step: int = 0
    first_step: int | None = None


@dataclass
class Simulation:
    """Runs a workload to its end and checks each step on the way."""

    workload: Workload
    rig: Rig = field(init=False)
    callers: list[Caller] = field(default_factory=list)
    num_preempted: int = 0
    num_steps: int = 0

    def __post_init__(self) -> None:
        self.rig = Rig(self.workload.fake, self.workload.options)

    def run(self) -> None:
        start = self.rig.clock.now
        serials = itertools.count()
        events: list[tuple[float, int, Callable[[], None]]] = []

        def at(seconds: float, action: Callable[[], None]) -> None:
            heapq.heappush(events, (start + seconds, next(serials), action))

        for arrival in self.workload.arrivals:
            at(arrival.at, functools.partial(self._arrive, arrival, at))
        # Every step computes at least one token, so this many are more than enough.
        steps_left = 20_000
        while True:
            while events and events[0][0] <= self.rig.clock.now:
                heapq.heappop(events)[2]()
            if self._step():
                steps_left -= 1
                assert steps_left, "it never ends"
            elif events:
                # Idle: the clock goes on to what happens next, a deadline maybe.
                until = min(events[0][0], self.rig.worker.next_deadline)
                self.rig.clock.now = max(self.rig.clock.now, until)
            else:
                break

    def _arrive(self, arrival: Arrival, at: Callable[[float, Callable[[], None]], None]) -> None:
        request = self.rig.request(
            arrival.prompt_tokens,
            arrival.max_tokens,
            deadline_in=arrival.deadline_in,
            priority=arrival.priority,
            tenant=arrival.tenant,
        )
        caller = Caller(
            arrival,
            request,
            RecordingSink(self.rig.clock),
            arrived_at=self.rig.clock.now,
            arrived_step=self.num_steps + 1,
        )
        self.callers.append(caller)
        try:
            self.rig.admission.submit(request, caller.sink)
        except (QueueFull, RequestTooLarge, DeadlineExpired) as error:
            caller.sink.fail(error)
            return
        caller.is_admitted = True
        if arrival.cancel_after is not None:
            at(arrival.at + arrival.cancel_after, caller.sink.cancel)
        if arrival.slow_from is not None:
            at(arrival.at + arrival.slow_from, caller.sink.lose_room)
            at(arrival.at + arrival.slow_from + arrival.slow_for, caller.sink.make_room)

    # ------------------------------------------------------------------ what each step must keep
    def _step(self) -> bool:
        rig, slots = self.rig, self.rig.worker._slots
        before = {
            sequence.request.id: len(sequence.token_ids)
            for sequence in slots.running
            if sequence.num_pending == 1
            and sequence.sink.has_room
            and not sequence.sink.is_cancelled
            and sequence.deadline > rig.clock.now
        }
        num_runs = len(rig.session.steps)
        self.num_steps += 1
        has_run = rig.advance()
        running = {sequence.request.id: sequence for sequence in slots.running}
        ended = {caller.request.id for caller in self.callers if caller.sink.is_ended}
        preempted = before.keys() - running.keys() - ended
        self.num_preempted += len(preempted)
        num_texts = len(before) - len(preempted)
        self._check_budgets(rig.session.lengths[num_runs:], num_texts=num_texts)
        for request_id, num_tokens in before.items():
            if request_id in running:
                assert len(running[request_id].token_ids) == num_tokens + 1, "a text was left out"
        for caller in self.callers:
            has_begun = caller.request.id in running or caller.sink.chunks
            if has_begun and caller.first_step is None:
                caller.first_step = self.num_steps
        return has_run

    def _check_budgets(self, runs: list[list[int]], *, num_texts: int) -> None:
        rig, limits = self.rig, self.rig.limits.step
        lengths = [length for run in runs for length in run]
        prompts = [length for length in lengths if length > 1]
        assert sum(lengths) <= limits.step_token_budget
        assert rig.session.num_open <= self.workload.fake.slots
        assert rig.worker.kv_tokens <= limits.max_kv_tokens
        if num_texts:
            assert sum(prompts) <= limits.prefill_chunk_tokens
        for run in runs:
            assert max(run) - min(run) < limits.ride_along_tokens
        if prompts and num_texts:
            assert 1 in runs[0], "texts come first"

    # ------------------------------------------------------------------ what the end must show
    def check_end(self) -> None:
        assert self.rig.session.num_open == 0
        assert self.rig.worker.kv_tokens == 0
        assert self.rig.admission.wait_until_empty(0)
        for caller in self.callers:
            self._check_caller(caller)
        self._check_order()

    def _check_caller(self, caller: Caller) -> None:
        sink, request = caller.sink, caller.request
        assert sink.is_ended, "a request was left waiting"
        room = self.rig.limits.max_context_tokens - len(request.prompt_ids)
        max_tokens = max(0, min(request.stop.max_tokens, room))
        expected = list(itertools.islice(LANGUAGE.generate(request.prompt_ids), max_tokens))
        assert sink.token_ids == expected[: len(sink.token_ids)]
        if sink.final is None:
            if caller.is_admitted:
                assert isinstance(sink.error, DeadlineExpired)
                assert request.deadline is not None
            return
        if sink.final.finish_reason is FinishReason.CANCELLED:
            assert sink.is_cancelled
        else:
            assert sink.token_ids == expected
        phases = sink.final.phases
        for earlier, later in itertools.pairwise(phases):
            assert earlier.end == later.start
        assert sink.final.usage.completion_tokens == len(sink.token_ids)

    def _check_order(self) -> None:
        """Within a tenant nothing gets its slot before what is due earlier and was there."""
        started = [caller for caller in self.callers if caller.first_step is not None]
        for first, second in itertools.permutations(started, 2):
            if first.request.tenant == second.request.tenant and self._due(first) < self._due(
                second
            ):
                assert first.first_step is not None
                assert second.first_step is not None
                came_late = first.arrived_step > second.first_step
                assert came_late or first.first_step <= second.first_step

    def _due(self, caller: Caller) -> float:
        options, request = self.workload.options, caller.request
        priority = max(-options.max_priority, min(options.max_priority, request.priority))
        deadline = math.inf if request.deadline is None else request.deadline
        due = min(deadline, caller.arrived_at + options.patience_s)
        return due - priority * options.priority_step_s
