from __future__ import annotations

import math

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from leptond.scheduler import SchedulerOptions
from leptond.scheduler.queue import FairQueue, bounded_priority, due_time
from leptond.scheduler.sequence import Sequence
from leptond.types import GenerationRequest, StopConditions
from tests.unit.scheduler.rig import GREEDY, RecordingSink, SimulatedClock

TENANTS = ("a", "b", "c")
SLOTS = 3


class QueueMachine(RuleBasedStateMachine):
    """Requests come, get slots, lose them and leave, while a model keeps lists of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = SimulatedClock(0.0)
        self.queue = FairQueue[Sequence]()
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []

    @initialize(
        patience_s=st.sampled_from((0.0, 2.0, 100.0)), step_s=st.sampled_from((0.0, 1.0, 10.0))
    )
    def start(self, patience_s: float, step_s: float) -> None:
        self.options = SchedulerOptions(
            patience_s=patience_s, priority_step_s=step_s, max_priority=3
        )

    @rule(
        tenant=st.sampled_from(TENANTS),
        num_tokens=st.integers(1, 50),
        priority=st.integers(-5, 5),
        deadline_in=st.one_of(st.just(math.inf), st.floats(0.1, 20.0)),
    )
    def come(self, tenant: str, num_tokens: int, priority: int, deadline_in: float) -> None:
        now = self.clock.now
        request = GenerationRequest(
            "r", tuple(range(num_tokens)), GREEDY, StopConditions(9), tenant=tenant
        )
        level = bounded_priority(self.options, priority)
        sequence = Sequence(
            request,
            RecordingSink(self.clock),
            arrival=now,
            due=due_time(self.options, now, now + deadline_in, level),
            priority=level,
            max_tokens=9,
        )
        num_ahead, _ = self.queue.ahead_of(tenant, sequence.due, num_tokens)
        self.queue.enter(sequence)
        self.waiting.append(sequence)
        assert num_ahead <= len(self.waiting) - 1

    @rule(seconds=st.floats(0.0, 5.0))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @precondition(lambda self: any(sequence.is_ready for sequence in self.waiting))
    @rule()
    def take_the_next(self) -> None:
        (sequence,) = self.queue.candidates(1)
        self.check_next(sequence)
        self.queue.remove(sequence)
        self.waiting.remove(sequence)
        self.running.append(sequence)
        if len(self.running) > SLOTS:
            self.leave_running(0)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, SLOTS), num_tokens=st.integers(1, 20))
    def serve(self, which: int, num_tokens: int) -> None:
        sequence = self.running[which % len(self.running)]
        sequence.account.served_tokens += num_tokens
        sequence.token_ids.append(0)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, SLOTS))
    def lose_the_slot(self, which: int) -> None:
        sequence = self.running.pop(which % len(self.running))
        self.queue.wait(sequence)
        self.waiting.append(sequence)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, SLOTS))
    def leave_running(self, which: int) -> None:
        self.queue.leave(self.running.pop(which % len(self.running)))

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 20))
    def leave_waiting(self, which: int) -> None:
        sequence = self.waiting.pop(which % len(self.waiting))
        self.queue.remove(sequence)
        self.queue.leave(sequence)

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 20), has_room=st.booleans())
    def reader_slows_or_comes_back(self, which: int, has_room: bool) -> None:  # noqa: FBT001
        sink = self.waiting[which % len(self.waiting)].sink
        assert isinstance(sink, RecordingSink)
        sink.has_room = has_room

    def check_next(self, sequence: Sequence) -> None:
        ready = [other for other in self.waiting if other.is_ready]
        served = min(other.account.served_tokens for other in ready)
        assert sequence.account.served_tokens == served
        mates = [other for other in ready if other.account is sequence.account]
        assert sequence.due == min(other.due for other in mates)

    @invariant()
    def books_add_up(self) -> None:
        self.queue.check_integrity()
        assert len(self.queue) == len(self.waiting)
        assert sorted(map(id, self.queue)) == sorted(map(id, self.waiting))
        assert self.queue.num_active == len(self.waiting) + len(self.running)
        assert self.queue.num_tokens == sum(sequence.num_tokens for sequence in self.waiting)

    @invariant()
    def candidates_are_those_ready_without_repeat(self) -> None:
        ready = [sequence for sequence in self.waiting if sequence.is_ready]
        named = self.queue.candidates(len(self.waiting) + 1)
        assert sorted(map(id, named)) == sorted(map(id, ready))
        assert self.queue.candidates(2) == named[:2]


TestQueueMachine = QueueMachine.TestCase
