from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from leptond.errors import InvariantViolation
from leptond.scheduler.policy import GROWTH_TOKENS, Run, Snapshot, StepLimits, StepPlan, plan

LIMITS = StepLimits(
    step_token_budget=512, prefill_chunk_tokens=256, ride_along_tokens=64, max_kv_tokens=100_000
)


@dataclass(frozen=True)
class Row:
    """A sequence as the planner sees it."""

    name: str
    num_tokens: int
    num_computed: int = 0
    due: float = 0.0
    is_paused: bool = False

    @property
    def num_pending(self) -> int:
        return self.num_tokens - self.num_computed


def text(name: str, num_tokens: int = 100, *, due: float = 0.0, is_paused: bool = False) -> Row:
    """A running text with one token to compute."""
    return Row(name, num_tokens, num_tokens - 1, due, is_paused)


def snapshot(
    *running: Row,
    waiting: tuple[Row, ...] = (),
    num_free_slots: int = 16,
    limits: StepLimits = LIMITS,
) -> Snapshot[Row]:
    kv_tokens = sum(row.num_computed for row in running)
    return Snapshot(running, waiting, num_free_slots, kv_tokens, limits)


def names(rows: tuple[Row, ...]) -> list[str]:
    return [row.name for row in rows]


def lengths(decided: StepPlan[Row]) -> list[dict[str, int]]:
    def of(run: Run[Row]) -> dict[str, int]:
        return {row.name: num_tokens for row, num_tokens in run}

    return [of(run) for run in decided.runs]


def test_nothing_to_do_is_an_empty_plan():
    assert plan(snapshot()) == StepPlan((), (), ())


def test_running_texts_get_one_token_each_in_one_run():
    assert lengths(plan(snapshot(text("a"), text("b")))) == [{"a": 1, "b": 1}]


def test_a_paused_text_keeps_its_slot_and_gets_no_row():
    decided = plan(snapshot(text("a"), text("slow", is_paused=True)))
    assert lengths(decided) == [{"a": 1}]
    assert not decided.preempted


def test_only_paused_texts_make_no_run():
    assert plan(snapshot(text("slow", is_paused=True))).runs == ()


def test_a_short_prompt_rides_along_with_the_texts():
    decided = plan(snapshot(text("a"), waiting=(Row("p", 64),)))
    assert lengths(decided) == [{"a": 1, "p": 64}]
    assert names(decided.admitted) == ["p"]


def test_a_longer_prompt_gets_a_run_of_its_own_after_the_texts():
    assert lengths(plan(snapshot(text("a"), waiting=(Row("p", 65),)))) == [{"a": 1}, {"p": 65}]


def test_a_prompt_is_cut_to_a_chunk_while_texts_run():
    assert lengths(plan(snapshot(text("a"), Row("p", 1000)))) == [{"a": 1}, {"p": 256}]


def test_all_prompts_of_a_step_share_one_chunk_while_texts_run():
    decided = plan(snapshot(text("a"), Row("p", 200, due=1.0), Row("q", 200, due=2.0)))
    assert lengths(decided) == [{"a": 1, "q": 56}, {"p": 200}]


def test_a_prompt_alone_gets_the_whole_budget():
    assert lengths(plan(snapshot(Row("p", 1000)))) == [{"p": 512}]


def test_prompts_of_equal_length_pack_into_one_run():
    waiting = tuple(Row(f"p{i}", 130) for i in range(3))
    assert lengths(plan(snapshot(waiting=waiting))) == [{"p0": 130, "p1": 130, "p2": 130}]


def test_prompts_of_unlike_length_get_runs_of_their_own():
    decided = plan(snapshot(waiting=(Row("long", 300), Row("short", 100), Row("mid", 110))))
    assert lengths(decided) == [{"short": 100, "mid": 110}, {"long": 300}]


def test_a_prompt_of_one_token_is_a_row_like_a_texts():
    assert lengths(plan(snapshot(Row("p", 1), text("a")))) == [{"p": 1, "a": 1}]


def test_a_short_piece_of_a_prompt_is_not_worth_a_run():
    decided = plan(snapshot(waiting=(Row("p", 500), Row("q", 100))))
    assert lengths(decided) == [{"p": 500}]
    assert names(decided.admitted) == ["p"]


def test_a_piece_that_would_ride_along_is_taken_however_short():
    decided = plan(snapshot(text("a"), Row("p", 250), waiting=(Row("q", 100),)))
    assert lengths(decided) == [{"a": 1, "q": 6}, {"p": 250}]


def test_prompts_go_on_in_the_order_in_which_they_are_due():
    limits = replace(LIMITS, step_token_budget=100, prefill_chunk_tokens=100)
    rows = (Row("late", 200, due=2.0), Row("early", 100, due=1.0))
    assert lengths(plan(snapshot(*rows, limits=limits))) == [{"early": 100}]


def test_what_runs_goes_before_what_waits():
    decided = plan(snapshot(Row("p", 600, due=9.0), waiting=(Row("q", 600, due=1.0),)))
    assert lengths(decided) == [{"p": 512}]
    assert not decided.admitted


def test_no_more_is_admitted_than_slots_are_free():
    waiting = tuple(Row(f"p{i}", 10) for i in range(3))
    decided = plan(snapshot(text("a"), waiting=waiting, num_free_slots=2))
    assert names(decided.admitted) == ["p0", "p1"]


# ---------------------------------------------------------------------------------------- memory
def small(max_kv_tokens: int) -> StepLimits:
    return replace(LIMITS, max_kv_tokens=max_kv_tokens)


def test_a_prompt_waits_until_it_fits_whole_with_room_to_grow():
    needed = 100 + 50 + 2 * GROWTH_TOKENS
    for max_kv_tokens, admitted in ((needed, ["p"]), (needed - 1, [])):
        now = snapshot(text("a"), waiting=(Row("p", 50),), limits=small(max_kv_tokens))
        assert names(plan(now).admitted) == admitted


def test_prompts_that_are_admitted_together_fit_together():
    needed = 2 * 50 + 2 * GROWTH_TOKENS
    for max_kv_tokens, admitted in ((needed, ["p", "q"]), (needed - 1, ["p"])):
        waiting = (Row("p", 50), Row("q", 50))
        decided = plan(snapshot(waiting=waiting, limits=small(max_kv_tokens)))
        assert names(decided.admitted) == admitted


def test_nothing_overtakes_a_prompt_that_waits_for_memory():
    now = snapshot(text("a"), waiting=(Row("big", 500), Row("tiny", 1)), limits=small(300))
    assert not plan(now).admitted


def test_a_prompt_alone_is_admitted_whatever_it_leaves():
    decided = plan(snapshot(waiting=(Row("p", 99),), limits=small(100)))
    assert names(decided.admitted) == ["p"]


def test_the_text_due_last_gives_way_when_memory_is_short():
    now = snapshot(
        text("a", due=1.0), text("b", due=3.0), text("c", due=2.0), limits=small(99 * 3 + 2)
    )
    decided = plan(now)
    assert names(decided.preempted) == ["b"]
    assert lengths(decided) == [{"a": 1, "c": 1}]


def test_a_paused_text_gives_way_first():
    now = snapshot(text("slow", due=1.0, is_paused=True), text("a", due=2.0), limits=small(198))
    assert names(plan(now).preempted) == ["slow"]


def test_of_equals_the_newest_gives_way():
    now = snapshot(text("a"), text("b"), limits=small(198))
    assert names(plan(now).preempted) == ["b"]


def test_a_prompt_without_room_for_a_token_makes_room():
    now = snapshot(
        Row("p", 60, 50, due=1.0), text("slow", 51, due=0.0, is_paused=True), limits=small(100)
    )
    decided = plan(now)
    assert names(decided.preempted) == ["slow"]
    assert lengths(decided) == [{"p": 10}]


def test_a_prompt_gets_what_the_texts_leave_of_the_memory():
    now = snapshot(text("a", 11), Row("p", 100), limits=small(31))
    assert lengths(plan(now)) == [{"a": 1, "p": 20}]


def test_nothing_is_admitted_in_the_step_that_takes_a_slot_away():
    # Without the one taken away there would be room.
    now = snapshot(text("a"), text("b"), waiting=(Row("p", 1),), limits=small(198))
    decided = plan(now)
    assert names(decided.preempted) == ["b"]
    assert not decided.admitted


def test_one_text_that_exceeds_the_memory_alone_is_a_bug():
    with pytest.raises(InvariantViolation):
        plan(snapshot(text("a"), limits=small(99)))
