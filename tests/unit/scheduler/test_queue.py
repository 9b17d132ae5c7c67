from __future__ import annotations

import math

import pytest

from leptond.errors import InvariantViolation
from leptond.scheduler import SchedulerOptions
from leptond.scheduler.queue import FairQueue, bounded_priority, due_time
from leptond.scheduler.sequence import Sequence
from leptond.types import GenerationRequest, StopConditions
from tests.unit.scheduler.rig import GREEDY, RecordingSink, SimulatedClock

OPTIONS = SchedulerOptions(patience_s=60.0, priority_step_s=10.0, max_priority=5)


def sequence(
    name: str,
    *,
    tenant: str = "",
    at: float = 0.0,
    deadline: float = math.inf,
    priority: int = 0,
    num_tokens: int = 10,
) -> Sequence:
    request = GenerationRequest(
        name, tuple(range(num_tokens)), GREEDY, StopConditions(9), tenant=tenant
    )
    level = bounded_priority(OPTIONS, priority)
    due = due_time(OPTIONS, at, deadline, level)
    sink = RecordingSink(SimulatedClock())
    return Sequence(request, sink, arrival=at, due=due, priority=level, max_tokens=9)


def queue_of(*sequences: Sequence) -> FairQueue[Sequence]:
    queue = FairQueue[Sequence]()
    for one in sequences:
        queue.enter(one)
    return queue


def order(queue: FairQueue[Sequence], limit: int = 100) -> list[str]:
    return [one.request.id for one in queue.candidates(limit)]


def test_equal_requests_go_in_order_of_arrival():
    queue = queue_of(sequence("a", at=1.0), sequence("b", at=1.0), sequence("c", at=2.0))
    assert order(queue) == ["a", "b", "c"]


def test_a_near_deadline_goes_first_and_a_far_one_is_worth_nothing():
    queue = queue_of(
        sequence("none", at=0.0),
        sequence("far", at=1.0, deadline=999.0),
        sequence("near", at=2.0, deadline=9.0),
    )
    assert order(queue) == ["near", "none", "far"]


def test_priority_goes_first_until_the_others_have_waited_for_it():
    queue = queue_of(
        sequence("old", at=0.0), sequence("young", at=15.0), sequence("urgent", at=12.0, priority=1)
    )
    assert order(queue) == ["old", "urgent", "young"]


@pytest.mark.parametrize("priority", [6, 1 << 31])
def test_no_priority_counts_more_than_the_highest(priority: int):
    assert bounded_priority(OPTIONS, priority) == 5
    assert bounded_priority(OPTIONS, -priority) == -5


def test_the_tenant_that_was_served_least_goes_first():
    queue = queue_of(sequence("a1", tenant="a"), sequence("b1", tenant="b"))
    busy = sequence("a0", tenant="a")
    queue.enter(busy)
    queue.remove(busy)
    busy.account.served_tokens += 1
    assert order(queue) == ["b1", "a1"]


def test_tenants_take_turns_by_the_tokens_they_take():
    queue = queue_of(
        *(sequence(f"a{i}", tenant="a", num_tokens=10) for i in range(6)),
        *(sequence(f"b{i}", tenant="b", num_tokens=30) for i in range(2)),
    )
    assert order(queue) == ["a0", "b0", "a1", "a2", "a3", "b1", "a4", "a5"]


def test_a_tenant_that_comes_back_starts_level_with_the_active():
    queue = FairQueue[Sequence]()
    long = sequence("long", tenant="a")
    queue.enter(long)
    queue.remove(long)
    long.account.served_tokens = 5_000
    fresh = sequence("fresh", tenant="b")
    queue.enter(fresh)
    assert fresh.account.served_tokens == 5_000


def test_a_level_is_kept_while_nobody_is_there():
    queue = FairQueue[Sequence]()
    for expected in (0, 100):
        one = sequence("x", tenant="a")
        queue.enter(one)
        assert one.account.served_tokens == expected
        queue.remove(one)
        one.account.served_tokens += 100
        queue.leave(one)
    assert queue.num_active == 0


def test_candidates_stop_at_the_limit():
    assert order(queue_of(*(sequence(f"r{i}") for i in range(5))), 2) == ["r0", "r1"]


def test_a_preempted_text_with_a_slow_reader_is_passed_over():
    slow = sequence("slow")
    slow.token_ids.append(1)
    assert isinstance(slow.sink, RecordingSink)
    slow.sink.has_room = False
    queue = queue_of(slow, sequence("next", at=1.0))
    assert order(queue) == ["next"]
    slow.sink.has_room = True
    assert order(queue) == ["slow", "next"]


def test_what_is_ahead_is_the_own_tenants_earlier_and_the_same_of_each_other():
    queue = queue_of(
        sequence("a0", tenant="a", num_tokens=10),
        sequence("a1", tenant="a", at=50.0, num_tokens=10),
        *(sequence(f"b{i}", tenant="b", num_tokens=100) for i in range(9)),
        sequence("c0", tenant="c", num_tokens=5),
    )
    due = due_time(OPTIONS, 20.0, math.inf, 0)
    # One of its own; two of b, though at most 10 + 7 tokens' worth; one of c.
    assert queue.ahead_of("a", due, 7) == (1 + 2 + 1, 10 + 17 + 5)
    assert queue.ahead_of("new", due, 7) == (3, 7 + 7 + 5)


def test_what_waits_can_be_counted():
    queue = queue_of(sequence("a", num_tokens=3), sequence("b", num_tokens=4))
    assert len(queue) == queue.num_active == 2
    assert queue.num_tokens == 7
    assert {one.request.id for one in queue} == {"a", "b"}


def damaged(damage: str) -> FairQueue[Sequence]:
    first, second = sequence("a", at=1.0), sequence("b", at=2.0)
    queue = queue_of(first, second)
    account, waiting = first.account, queue._lanes[""].waiting
    if damage == "lost":
        waiting.pop()
    elif damage == "doubled":
        waiting[0] = second
    elif damage == "tokens":
        first.token_ids.append(1)
    elif damage == "active":
        account.num_active += 1
    elif damage == "inactive":
        account.num_active = queue._num_active = 1
    elif damage == "order":
        waiting.reverse()
    elif damage == "slot":
        first.slot = 3
    return queue


@pytest.mark.parametrize(
    "damage", ["lost", "doubled", "tokens", "active", "inactive", "order", "slot"]
)
def test_damage_is_noticed(damage: str):
    with pytest.raises(InvariantViolation):
        damaged(damage).check_integrity()


def test_a_sound_queue_passes():
    damaged("none").check_integrity()
