"""The planner on any snapshot: its invariants, one by one."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from hypothesis import assume, given
from hypothesis import strategies as st

from leptond.scheduler.policy import Snapshot, StepLimits, StepPlan, plan


@dataclass(frozen=True)
class Row:
    name: int
    num_tokens: int
    num_computed: int
    due: float
    is_paused: bool = False

    @property
    def num_pending(self) -> int:
        return self.num_tokens - self.num_computed


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot[Row]:
    dues = st.integers(0, 5).map(float)
    running = []
    for name in range(draw(st.integers(0, 6))):
        num_computed = draw(st.integers(0, 60))
        num_pending = draw(st.one_of(st.just(1), st.integers(1, 60)))
        running.append(
            Row(name, num_computed + num_pending, num_computed, draw(dues), draw(st.booleans()))
        )
    waiting = [
        Row(100 + name, draw(st.integers(1, 80)), 0, draw(dues))
        for name in range(draw(st.integers(0, 4)))
    ]
    kv_tokens = sum(row.num_computed for row in running)
    longest = max([row.num_tokens for row in running + waiting], default=1)
    return Snapshot(
        running=tuple(running),
        waiting=tuple(waiting),
        num_free_slots=draw(st.integers(0, 4)),
        kv_tokens=kv_tokens,
        limits=StepLimits(
            step_token_budget=draw(st.integers(10, 120)),
            prefill_chunk_tokens=draw(st.integers(1, 60)),
            ride_along_tokens=draw(st.integers(1, 40)),
            # Admission refuses what does not fit alone; what is held always fits.
            max_kv_tokens=draw(st.integers(max(longest, kv_tokens), 600)),
        ),
    )


def tokens(decided: StepPlan[Row]) -> dict[Row, int]:
    return {row: num_tokens for run in decided.runs for row, num_tokens in run}


@given(snapshots())
def test_a_plan_depends_on_its_snapshot_alone_and_leaves_it_as_it_is(snapshot: Snapshot[Row]):
    before = copy.deepcopy(snapshot)
    decided = plan(snapshot)
    assert snapshot == before
    assert plan(before) == decided


@given(snapshots())
def test_every_row_is_planned_once_for_tokens_that_it_has(snapshot: Snapshot[Row]):
    decided = plan(snapshot)
    planned = tokens(decided)
    assert len(planned) == sum(len(run) for run in decided.runs)
    assert all(1 <= num_tokens <= row.num_pending for row, num_tokens in planned.items())
    assert not any(row.is_paused for row in planned)
    holders = (set(snapshot.running) - set(decided.preempted)) | set(decided.admitted)
    assert planned.keys() <= holders
    assert set(decided.admitted) <= planned.keys()
    assert set(decided.preempted) <= set(snapshot.running)


@given(snapshots())
def test_I1_every_running_text_gets_its_token(snapshot: Snapshot[Row]):
    decided = plan(snapshot)
    planned = tokens(decided)
    for row in snapshot.running:
        if row.num_pending == 1 and not row.is_paused and row not in decided.preempted:
            assert planned[row] == 1


@given(snapshots())
def test_I2_no_budget_is_exceeded(snapshot: Snapshot[Row]):
    limits = snapshot.limits
    decided = plan(snapshot)
    planned = tokens(decided)
    assert sum(planned.values()) <= limits.step_token_budget
    kept = snapshot.kv_tokens - sum(row.num_computed for row in decided.preempted)
    assert kept + sum(planned.values()) <= limits.max_kv_tokens
    assert len(decided.admitted) <= snapshot.num_free_slots
    texts = [row for row in planned if row.num_pending == 1 and row in snapshot.running]
    if texts:
        prompts = [num_tokens for row, num_tokens in planned.items() if row not in texts]
        assert sum(prompts) <= limits.prefill_chunk_tokens


@given(snapshots())
def test_I3_prompts_go_on_in_order(snapshot: Snapshot[Row]):
    decided = plan(snapshot)
    planned = tokens(decided)
    prompts = sorted(
        (
            row
            for row in snapshot.running
            if row.num_pending > 1 and not row.is_paused and row not in decided.preempted
        ),
        key=lambda row: row.due,
    )
    done = [planned.get(row, 0) == row.num_pending for row in prompts]
    # All before the first that is not done are; all after it have nothing.
    first_open = done.index(False) if False in done else len(done)
    assert not any(planned.get(row, 0) for row in prompts[first_open + 1 :])
    assert decided.admitted == snapshot.waiting[: len(decided.admitted)]
    if False in done:
        assert not decided.admitted


@given(snapshots())
def test_I3_something_goes_on_unless_every_row_is_paused(snapshot: Snapshot[Row]):
    decided = plan(snapshot)
    active = [row for row in snapshot.running if not row.is_paused]
    assert bool(decided.runs) or not active
    if not snapshot.running and snapshot.waiting and snapshot.num_free_slots:
        assert decided.admitted


@given(snapshots())
def test_I4_paused_rows_give_way_first_and_then_who_is_due_last(snapshot: Snapshot[Row]):
    decided = plan(snapshot)
    assume(decided.preempted)
    kept = set(snapshot.running) - set(decided.preempted)
    active = [row for row in snapshot.running if not row.is_paused]
    if any(not row.is_paused for row in decided.preempted):
        assert not any(row.is_paused for row in kept)
        latest = max(row.due for row in kept)
        assert all(row.is_paused or row.due >= latest for row in decided.preempted)
    assert min(active, key=lambda row: row.due) in kept
    assert not decided.admitted


@given(snapshots())
def test_I5_rows_of_a_run_are_of_like_length_and_texts_come_first(snapshot: Snapshot[Row]):
    decided = plan(snapshot)
    for number, run in enumerate(decided.runs):
        lengths = [num_tokens for _, num_tokens in run]
        assert max(lengths) - min(lengths) < snapshot.limits.ride_along_tokens
        if number:
            assert min(lengths) > 1
