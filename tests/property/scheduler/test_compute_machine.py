"""The compute budget with real threads, of which each moves only when the machine says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from leptond.scheduler import ComputeBudget
from tests.unit.scheduler.rig import SimulatedClock

OWNERS = ("a", "b", "c", "d")
PATIENCE_S = 10.0
STEP_S = 1.0


@dataclass
class Worker:
    """A thread that takes one lease and gives it back when told."""

    budget: ComputeBudget
    owner: str
    priority: int
    num_cores: int
    due: float
    granted: threading.Event = field(default_factory=threading.Event)
    give_back: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with self.budget.lease(self.owner, self.priority, num_cores=self.num_cores):
            self.granted.set()
            self.give_back.wait(PATIENCE_S)

    def finish(self) -> None:
        self.give_back.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


class ComputeMachine(RuleBasedStateMachine):
    """A model of who must hold cores, in which order; the threads must do the same."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = SimulatedClock(0.0)
        self.workers: dict[str, Worker] = {}
        self.holding: list[str] = []
        self.waiting: list[str] = []

    @initialize(num_cores=st.sampled_from((2, 1, 3)))
    def start(self, num_cores: int) -> None:
        self.num_cores = num_cores
        self.budget = ComputeBudget(num_cores, clock=self.clock, priority_step_s=STEP_S)

    @precondition(lambda self: len(self.workers) < len(OWNERS))
    @rule(
        priority=st.sampled_from((0, -2, 2)),
        num_cores=st.sampled_from((1, 0, 2, 5)),
        seconds=st.integers(0, 2),
    )
    def ask(self, priority: int, num_cores: int, seconds: int) -> None:
        owner = next(owner for owner in OWNERS if owner not in self.workers)
        self.clock.now += seconds
        wanted = min(num_cores, self.num_cores) or self.num_cores
        due = self.clock.now - priority * STEP_S
        worker = Worker(self.budget, owner, priority, num_cores, due)
        worker.num_cores = wanted
        self.workers[owner] = worker
        self.waiting.append(owner)
        self.waiting.sort(key=lambda name: self.workers[name].due)
        self.grant()
        self._await(lambda: self.budget.num_waiting == len(self.waiting))

    @precondition(lambda self: self.holding)
    @rule(which=st.integers(0, 3))
    def give_back(self, which: int) -> None:
        owner = self.holding.pop(which % len(self.holding))
        self.workers.pop(owner).finish()
        self.grant()

    def grant(self) -> None:
        """Whoever is due first and fits holds its cores now."""
        while self.waiting and self.workers[self.waiting[0]].num_cores <= self.num_free:
            following = self.waiting.pop(0)
            assert self.workers[following].granted.wait(PATIENCE_S)
            self.holding.append(following)

    @property
    def num_free(self) -> int:
        return self.num_cores - sum(self.workers[owner].num_cores for owner in self.holding)

    @invariant()
    def nobody_else_holds_cores(self) -> None:
        if not hasattr(self, "budget"):
            return
        self.budget.check_integrity()
        assert self.num_free >= 0
        for owner, worker in self.workers.items():
            assert worker.granted.is_set() is (owner in self.holding)

    def teardown(self) -> None:
        while self.holding:
            self.give_back(0)
        assert not self.waiting

    def _await(self, condition: Callable[[], bool]) -> None:
        """Let the other thread get to its wait: it has nothing else to do."""
        never = threading.Event()
        for _ in range(1_000):
            if condition():
                return
            never.wait(0.001)
        raise AssertionError("the thread does not wait for its lease")


TestComputeMachine = ComputeMachine.TestCase
TestComputeMachine.settings = settings(max_examples=100, stateful_step_count=30)
